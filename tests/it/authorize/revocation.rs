//! `authorize --revoke`: takes its own back, and says what stays.

use super::*;

#[test]
fn revoking_takes_its_own_back_and_leaves_what_others_made() {
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --bucket exports --revoke").ends_with(2);
    env.assert_authorized();
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("done: delete role `CVM_QcsRole`");
    assert_eq!(env.access(), (vec![], vec![]));
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("nothing to change");

    let policy = |name: &str| Policy {
        name: name.to_owned(),
        policy_type: "User".to_owned(),
        writes: false,
    };
    env.cloud.change(|world| {
        let mut role = Role::for_exports();
        role.policies = vec![policy("theirs")];
        world.roles = vec![role];
        world.policies = vec![CustomPolicy {
            name: "theirs".to_owned(),
            description: String::new(),
            document: json!({"version": "2.0", "statement": []}).to_string(),
        }];
    });
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("stays: role `CVM_QcsRole`, because it was not made by cvm-export");
    let expected = vec![("CVM_QcsRole".to_owned(), vec!["theirs".to_owned()])];
    assert_eq!(env.access(), (expected, vec!["theirs".to_owned()]));
}

#[test]
fn what_bears_no_mark_stays_and_is_named_with_the_command_that_takes_it_back() {
    const PRESET: &str = "authorize --preset QcloudCOSDataWriteOnly";
    // A preset on a role of others.
    let env = TestEnv::new();
    env.cloud.change(|world| world.roles[0].policies.clear());
    env.line(&format!("{PRESET} --yes")).ends_with(0);
    env.line(&format!("{PRESET} --revoke --yes"))
        .ends_with(0)
        .says("stays: policy `QcloudCOSDataWriteOnly` on role `CVM_QcsRole`")
        .says("`tccli cam DetachRolePolicy --DetachRoleName CVM_QcsRole --PolicyName QcloudCOSDataWriteOnly`")
        .says("role `CVM_QcsRole` may still write there, by QcloudCOSDataWriteOnly")
        .does_not_say("made by cvm-export lets");
    env.assert_changes(&["AttachRolePolicy"]);

    // A statement that was added to the trust of such a role.
    let env = TestEnv::new();
    let before = Role::trust_in("scf.qcloud.com");
    env.cloud.change(|world| {
        world.roles[0].trust = before.clone();
        world.roles[0].policies.clear();
    });
    env.line(AUTHORIZE).ends_with(0);
    let run = env
        .line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("stays: that CVM may take on role `CVM_QcsRole`")
        .says("nothing that is known to be made by cvm-export lets role `CVM_QcsRole` write");
    let command = "`tccli cam UpdateAssumeRolePolicy --RoleName CVM_QcsRole --PolicyDocument '";
    let (_, rest) = run.stderr.split_once(command).expect("a command");
    let (document, _) = rest.split_once("'`").expect("its end");
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(document), parse(&before));

    // A preset on a role of ours that somebody may have attached since.
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --preset QcloudCOSFullAccess --yes")
        .ends_with(0);
    let mends = "`tccli cam DetachRolePolicy --DetachRoleName CVM_QcsRole --PolicyName QcloudCOSFullAccess`";
    env.line("authorize --preset QcloudCOSFullAccess --revoke --yes")
        .ends_with(0)
        .says(mends);
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says(mends)
        .says("may still write there, by QcloudCOSFullAccess");
    let carried = vec!["QcloudCOSFullAccess".to_owned()];
    let expected = vec![("CVM_QcsRole".to_owned(), carried)];
    assert_eq!(env.access(), (expected, vec![]));
}

#[test]
fn a_preset_that_a_role_was_made_with_goes_with_it() {
    let env = fresh();
    let line = "authorize --preset QcloudCOSDataWriteOnly";
    env.line(&format!("{line} --yes")).ends_with(0);
    // Another one, which hangs on it by somebody's hand, does not.
    let run = env
        .line("authorize --preset QcloudCOSFullAccess --revoke --dry-run")
        .ends_with(0);
    let mends = "`cvm-export authorize --preset QcloudCOSDataWriteOnly --revoke` takes it off";
    assert!(run.stdout.contains(mends), "{}", run.stdout);
    env.line(&format!("{line} --revoke --yes")).ends_with(0);
    assert_eq!(env.access(), (vec![], vec![]));
}

#[test]
fn what_was_made_for_a_bucket_that_is_gone_is_taken_back() {
    let mut env = fresh();
    env.unset("TENCENTCLOUD_REGION");
    env.line(AUTHORIZE).ends_with(0);
    env.cloud.change(|world| world.buckets.clear());
    env.line("authorize --bucket exports-1250000000 --revoke --yes")
        .ends_with(0);
    assert_eq!(env.access(), (vec![], vec![]));
}

#[test]
fn a_role_that_another_run_takes_back_meanwhile_is_made_anew() {
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.cloud.change(|world| world.roles[0].policies.clear());
    env.cloud
        .set_faults(vec![delayed("AttachRolePolicy", 1000)]);
    const LOOKS: [&str; 3] = ["GetRole", "ListAttachedRolePolicies", "GetPolicy"];
    let before = LOOKS.map(|call| env.calls(call));
    let run = env.start(&AUTHORIZE.split(' ').collect::<Vec<_>>());
    // Once to show it and once before the change; the change itself takes its time.
    for (call, before) in LOOKS.into_iter().zip(before) {
        env.wait_for_calls(call, before + 2);
    }
    env.cloud.change(|world| world.roles.clear());
    run.wait()
        .ends_with(0)
        .says("somebody else has changed something meanwhile")
        .says("done: create role `CVM_QcsRole`");
    env.assert_authorized();
}

#[test]
fn no_role_gets_or_loses_a_right_because_of_another() {
    let env = fresh();
    let run = |line: &str, code: i32| env.line(line).ends_with(code);
    run(
        "authorize --bucket exports --role-name A --prefix team-a/ --yes",
        0,
    );
    let document = |env: &TestEnv| env.cloud.change(|world| world.policies[0].document.clone());
    let of_a = document(&env);
    run(
        "authorize --bucket exports --role-name B --prefix team-b/ --yes",
        0,
    );
    let others = format!("image {LINUX} --role-name C --authorize --yes --no-wait -q");
    // What is done to rights is said however quiet the run.
    run(&others, 0).says("create role `C`");
    assert_eq!(document(&env), of_a);
    let own = |role: &str| format!("{POLICY}-{role}");
    let (roles, policies) = env.access();
    assert_eq!(policies, [own("a"), own("b"), own("c")]);
    assert_eq!(roles[0], ("A".to_owned(), vec![own("a")]));

    // A policy that somebody has given to others as well is not changed any more.
    env.cloud.change(|world| {
        let policy = world.roles[0].policies[0].clone();
        world.roles[1].policies.push(policy);
    });
    run("authorize --bucket exports --role-name A --yes", 3).says("carry it as well");
    assert_eq!(document(&env), of_a);

    // `image --authorize` replaces no policy, whatever was agreed to.
    run("authorize --bucket exports --prefix q/ --yes", 0);
    env.cloud.change(|world| {
        let ours = world
            .roles
            .iter_mut()
            .find(|role| role.name == "CVM_QcsRole");
        ours.expect("it was made").policies.clear();
    });
    let another = "image --id img-linux001 --bucket exports --prefix r --authorize --yes";
    run(another, 3)
        .says("replaces none")
        .says("`cvm-export authorize --bucket exports-1250000000`");
    env.line("authorize --bucket exports --prefix p --revoke --yes")
        .ends_with(2)
        .says("--revoke");
}
