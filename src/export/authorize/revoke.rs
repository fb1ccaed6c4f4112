//! The way back: what has to be done so that CVM may write no more, decided from what exists. Pure.

use super::Intent;
use super::plan::{Access, AccessPlan, Found, Grant, MARK, Step, carries, of_preset};
use crate::export::preflight::AttachedPolicy;
use crate::export::role::{self, WritingPreset};
use crate::model::{RoleName, printable_json, shell_line};

/// Takes away what carries our mark, and nothing else. What may be ours and bears no mark is named, with the
/// command that takes it back by hand.
pub(super) fn plan_revocation(found: &Found, unwanted: &Access) -> AccessPlan {
    let name = found
        .role
        .as_ref()
        .map_or(&unwanted.role, |role| &role.name);
    let mut plan = AccessPlan::empty(name);
    let is_own_role = found
        .role
        .as_ref()
        .is_some_and(|role| role.description.as_str().contains(MARK));
    // A role of ours may carry what somebody else has attached since.
    let came_with = |preset: &str| {
        let role = found.role.as_ref().filter(|_| is_own_role);
        role.is_some_and(|role| role.description.as_str().starts_with(&of_preset(preset)))
    };
    let policy = unwanted.policy_name();
    let is_preset = matches!(unwanted.grant, Grant::Preset(_));
    let mut detached = false;
    match &unwanted.grant {
        Grant::Preset(_) if carries(found, &policy, true) && came_with(&policy) => {
            detached = true;
            plan.push(Step::DetachPolicy {
                role: name.clone(),
                policy: policy.clone(),
            });
        }
        Grant::Preset(_) => {}
        Grant::Bucket { .. } => match &found.policy {
            None => {}
            Some(existing) if existing.description.as_str().contains(MARK) => {
                if carries(found, &policy, false) {
                    detached = true;
                    plan.push(Step::DetachPolicy {
                        role: name.clone(),
                        policy: policy.clone(),
                    });
                }
                let what = format!("policy `{policy}`");
                match existing.carriers {
                    None => plan.leave(what, "the cloud does not say whether others carry it"),
                    Some(count) if count > u64::from(detached) => {
                        plan.leave(what, "other users, groups or roles carry it as well");
                    }
                    Some(_) => plan.push(Step::DeletePolicy {
                        policy: policy.clone(),
                        policy_id: existing.id,
                    }),
                }
            }
            Some(_) => {
                if carries(found, &policy, false) {
                    plan.still.push(policy.clone());
                }
                plan.leave(
                    format!("policy `{policy}`"),
                    "it was not made by cvm-export",
                );
            }
        },
    }
    let Some(role) = &found.role else {
        return plan;
    };
    let stays = |attached: &&AttachedPolicy| {
        let is_meant = attached.name == *policy && attached.is_preset == is_preset;
        !(detached && is_meant)
    };
    let others = found.attached.iter().filter(stays);
    for wide in found.presets_that_allow(&unwanted.grant).filter(stays) {
        plan.still.push(wide.name.to_string());
        let is_own = came_with(wide.name.as_str());
        let why = why_preset_stays(wide.name.as_str(), name, unwanted, is_own);
        plan.leave(format!("policy `{}` on role `{name}`", wide.name), why);
    }
    let others: Vec<&str> = others.map(|attached| attached.name.as_str()).collect();
    let what = format!("role `{name}`");
    let trust = role.trust.as_str();
    if !is_own_role {
        plan.leave(what, "it was not made by cvm-export");
        if role::trusts_cvm(trust) != Some(false) {
            plan.leave(
                format!("that CVM may take on role `{name}`"),
                why_trust_stays(trust, name),
            );
        }
    } else if !others.is_empty() {
        plan.leave(what, format!("it carries {} as well", others.join(", ")));
    } else if !role::trusts_cvm_alone(trust) {
        plan.leave(what, "others than CVM may take it on by now");
    } else {
        plan.push(Step::DeleteRole { role: name.clone() });
    }
    plan
}

/// Why a preset that allows writing stays on the role, and what takes it off.
fn why_preset_stays(preset: &str, role: &RoleName, unwanted: &Access, is_own: bool) -> String {
    if let (true, Ok(preset)) = (is_own, preset.parse::<WritingPreset>()) {
        let about_it = Access {
            grant: Grant::Preset(preset),
            ..unwanted.clone()
        };
        let command = about_it.command(Intent::Revoke);
        return format!("it is about every bucket; `{command}` takes it off");
    }
    let words = [
        "tccli",
        "cam",
        "DetachRolePolicy",
        "--DetachRoleName",
        role.as_str(),
        "--PolicyName",
        preset,
    ];
    let command = shell_line(&words.map(str::to_owned));
    format!("nothing tells who attached it; `{command}` takes it off")
}

/// Why CVM stays in the trust document of a role that others made, and what takes it out.
fn why_trust_stays(trust: &str, role: &RoleName) -> String {
    let mends = match role::without_cvm(trust) {
        Some(document) => {
            // Whoever wrote the rest of it must not decide what the person sees.
            let document = printable_json(&document.to_string());
            let words = [
                "tccli",
                "cam",
                "UpdateAssumeRolePolicy",
                "--RoleName",
                role.as_str(),
                "--PolicyDocument",
                &document,
            ];
            format!("`{}`", shell_line(&words.map(str::to_owned)))
        }
        None => "the CAM console".to_owned(),
    };
    format!("nothing tells whether cvm-export or somebody else let it in; {mends} ends that")
}
