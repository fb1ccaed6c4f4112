//! What a download after the export needs: a folder, its room, and the right to read.

use super::{Judgement, fail, pass, unknown, unseen, warn};
use crate::download::advice;
use crate::export::preflight::facts::{Fact, Facts};
use crate::export::preflight::landing::LandingFacts;

/// Judges a download, where one was asked for.
pub(super) fn of_landing(
    facts: &Facts,
    judge: impl FnOnce(&LandingFacts) -> Judgement,
) -> Judgement {
    match &facts.landing {
        Some(landing) => judge(landing),
        None => pass("nothing is to be fetched"),
    }
}

pub(super) fn folder(landing: &LandingFacts, is_reused: bool) -> Judgement {
    let shown = landing.folder.display();
    if let Err(reason) = &landing.look {
        return fail(
            reason.clone(),
            "name a folder that can be written to with `--download`",
        );
    }
    // Files of an export that is taken as it stands are compared, not written.
    if landing.in_the_way.is_empty() || landing.replaces || is_reused {
        return pass(format!("files can be made in `{shown}`"));
    }
    let names: Vec<String> = landing
        .in_the_way
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    fail(
        format!("in `{shown}` stand already: {}", names.join(", ")),
        "move them away, name another folder with `--download`, or replace them with `--force`",
    )
}

pub(super) fn room(landing: &LandingFacts) -> Judgement {
    let Ok(look) = &landing.look else {
        return unknown(
            "the folder cannot be looked at",
            "see the check `download-folder`",
        );
    };
    let Some(needed) = landing.disk_bytes else {
        return unknown(
            "the disks' sizes are not known",
            "the run stops resumably when the room ends",
        );
    };
    let Some(free) = look.free_bytes else {
        return unknown(
            format!("the disks have {needed} bytes, and the file system does not tell its room"),
            "the run stops resumably when the room ends",
        );
    };
    let figures = format!("the disks have {needed} bytes, {free} are free");
    let advice = advice(needed, landing.network).filter(|_| landing.is_raw);
    if free >= needed {
        return match advice {
            Some(advice) => warn(figures, advice),
            None => pass(figures),
        };
    }
    if landing.is_raw && !look.keeps_holes {
        return fail(
            format!("{figures}, and its files cannot have holes"),
            "make room, or name a folder on another disk with `--download`",
        );
    }
    let hope = if landing.is_raw {
        "zeros take no room"
    } else {
        "the files may be smaller than the disks"
    };
    let hope = format!("{hope}; the run stops resumably when the room ends");
    warn(
        figures,
        advice.map_or(hope.clone(), |advice| format!("{hope}. {advice}")),
    )
}

pub(super) fn right(landing: &LandingFacts) -> Judgement {
    match &landing.right {
        Fact::Known(()) => pass("objects of these names may be read"),
        Fact::NotPermitted(reason) => fail(
            reason.clone(),
            "allow `name/cos:GetObject` and `name/cos:HeadObject` on the bucket's objects, or leave \
             `--download` out",
        ),
        other => unseen(
            other,
            "allow `name/cos:GetObject` and `name/cos:HeadObject` on the bucket's objects",
        ),
    }
}
