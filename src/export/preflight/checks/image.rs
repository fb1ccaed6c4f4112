//! What the image itself decides: its type, state, system and disks.

use std::collections::BTreeSet;

use super::{Judgement, fail, pass, unknown, unseen, warn};
use crate::cloud::actions::cvm::Image;
use crate::export::preflight::facts::{Fact, Facts, disks};
use crate::export::refusals;
use crate::export::request::{DiskRole, DiskScope};

/// The largest system or data disk that can be exported, in GB (product page 213/46841).
const DISK_LIMIT_GB: u64 = 500;
/// The most data disks of a whole-machine export (product page 213/46841).
const DATA_DISK_LIMIT: usize = 5;

/// Judges what needs the image, and says the same for all of these when it is not there.
pub(super) fn of_image(facts: &Facts, judge: impl Fn(&Facts, &Image) -> Judgement) -> Judgement {
    match &facts.image {
        Fact::Known(Some(image)) => judge(facts, image),
        Fact::Known(None) => missing_image(facts),
        other => unseen(
            other,
            "allow `cvm:DescribeImages`, and look whether the region is right",
        ),
    }
}

fn missing_image(facts: &Facts) -> Judgement {
    let (image_id, region) = (&facts.request.image_id, &facts.request.region);
    let evidence = format!("there is no image `{image_id}` in {region}");
    match facts.found_in.as_slice() {
        [] => fail(
            evidence,
            "look for the id with `cvm-export images --region REGION`",
        ),
        [found, ..] => fail(
            format!("{evidence}; it was found in {found}"),
            format!(
                "use `--region {found}` with a bucket of that region; `--copy-to-bucket-region` exports a copy of the \
                 image"
            ),
        ),
    }
}

pub(super) fn image_type(image: &Image) -> Judgement {
    match image.image_type.as_str() {
        "PRIVATE_IMAGE" => pass("a custom image"),
        "SHARED_IMAGE" => fail(
            "the image is shared by another account",
            refusals::SHARED_IMAGE,
        ),
        "PUBLIC_IMAGE" => fail("the image is a public one", refusals::PUBLIC_IMAGE),
        "MARKET_IMAGE" => fail(
            "the image comes from the marketplace",
            refusals::PUBLIC_IMAGE,
        ),
        other => warn(
            format!("the image is of the type `{other}`, which is not known here"),
            "only custom images can be exported; the cloud decides about this one",
        ),
    }
}

pub(super) fn image_state(image: &Image) -> Judgement {
    match image.image_state.as_str() {
        "NORMAL" => pass("the image is NORMAL"),
        state @ ("CREATEFAILED" | "IMPORTFAILED" | "DELETING") => fail(
            format!("the image is {state}"),
            "make a new image; this one will not become usable",
        ),
        state @ ("CREATING" | "SYNCING" | "IMPORTING" | "USING") => warn(
            format!("the image is {state}: another operation holds it"),
            "the submit waits for it within the timeout; `--no-queue` does not wait",
        ),
        other => warn(
            format!("the image is in the state `{other}`, which is not known here"),
            "the cloud decides whether it can be exported now",
        ),
    }
}

pub(super) fn platform(image: &Image) -> Judgement {
    let (platform, system) = (&image.platform, &image.os_name);
    if is_windows(platform.as_str()) || is_windows(system.as_str()) {
        return fail(
            format!("the image holds Windows ({system}), which cannot be exported"),
            refusals::LICENSED_IMAGE,
        );
    }
    if platform.as_str().is_empty() && system.as_str().is_empty() {
        return unknown(
            "the cloud names neither platform nor system",
            "look at the image in the console; `--skip-check platform` goes on",
        );
    }
    pass(if system.as_str().is_empty() {
        platform.to_string()
    } else {
        system.to_string()
    })
}

fn is_windows(text: &str) -> bool {
    text.to_ascii_lowercase().contains("windows")
}

pub(super) fn license(image: &Image) -> Judgement {
    let (platform, system) = (image.platform.as_str(), image.os_name.as_str());
    if platform.is_empty() && system.is_empty() {
        return unknown(
            "the cloud names neither platform nor system",
            "look at the image in the console; the cloud refuses Red Hat itself",
        );
    }
    let is_red_hat = [platform, system].into_iter().any(|text| {
        let text = text.to_ascii_lowercase().replace([' ', '_', '-'], "");
        text.contains("redhat") || text.starts_with("rhel")
    });
    if is_red_hat {
        fail(
            "the image holds Red Hat, which cannot be exported",
            refusals::LICENSED_IMAGE,
        )
    } else {
        pass("not Red Hat")
    }
}

pub(super) fn disk_size(image: &Image, scope: DiskScope) -> Judgement {
    let disks = match disks(image) {
        Ok(disks) if disks.is_empty() => return no_disks(),
        Ok(disks) => disks,
        Err(problem) => return unknown(problem, "look at the image in the console"),
    };
    let counts = |role| scope == DiskScope::WholeMachine || role == DiskRole::System;
    let too_large: Vec<String> = disks
        .iter()
        .filter(|disk| counts(disk.role) && disk.size_gib > DISK_LIMIT_GB)
        .map(|disk| {
            format!(
                "the {} disk {} has {} GB",
                disk.role, disk.snapshot_id, disk.size_gib
            )
        })
        .collect();
    let largest = disks
        .iter()
        .filter(|disk| counts(disk.role))
        .map(|disk| disk.size_gib)
        .max();
    match (too_large.as_slice(), largest) {
        (_, None) => no_disks(),
        ([], Some(largest)) => pass(format!(
            "the largest disk has {largest} GB (limit {DISK_LIMIT_GB} GB)"
        )),
        (disks, Some(_)) => fail(
            format!("{} (limit {DISK_LIMIT_GB} GB)", disks.join(", ")),
            refusals::LARGE_DISK,
        ),
    }
}

fn no_disks() -> Judgement {
    unknown(
        "the cloud lists no snapshots of the image, so its disks are not known",
        "look at the image in the console; `--skip-check disk-size --skip-check disk-count` goes on",
    )
}

pub(super) fn disk_count(image: &Image, scope: DiskScope) -> Judgement {
    let disks = match disks(image) {
        Ok(disks) if disks.is_empty() => return no_disks(),
        Ok(disks) => disks,
        Err(problem) => return unknown(problem, "look at the image in the console"),
    };
    let data_disks = disks
        .iter()
        .filter(|disk| disk.role == DiskRole::Data)
        .count();
    match scope {
        DiskScope::SystemDiskOnly => {
            pass(format!("the system disk alone, of {} disks", disks.len()))
        }
        DiskScope::WholeMachine if data_disks > DATA_DISK_LIMIT => fail(
            format!("the image has {data_disks} data disks (limit {DATA_DISK_LIMIT})"),
            "export the system disk alone with `--system-disk-only`, or make an image with fewer data disks",
        ),
        DiskScope::WholeMachine => {
            pass(format!("{data_disks} data disks (limit {DATA_DISK_LIMIT})"))
        }
    }
}

pub(super) fn encryption(facts: &Facts) -> Judgement {
    if matches!(facts.image, Fact::Known(None)) {
        return unknown("there is no image to look at", "see the check `image-type`");
    }
    let snapshots = match &facts.snapshots {
        Fact::Known(snapshots) => snapshots,
        other => {
            return unseen(
                other,
                "allow `cvm:DescribeSnapshots` (CBS); the cloud refuses encrypted images itself",
            );
        }
    };
    let wanted: BTreeSet<&str> = match &facts.files {
        Ok(files) => {
            let known = files.iter().filter_map(|file| file.snapshot_id.as_ref());
            known.map(crate::model::SnapshotId::as_str).collect()
        }
        // A prefix that makes no names says nothing about the disks.
        Err(_) => snapshots
            .iter()
            .map(|snapshot| snapshot.snapshot_id.as_str())
            .collect(),
    };
    let encrypted: Vec<&str> = snapshots
        .iter()
        .filter(|snapshot| snapshot.encrypt == Some(true))
        .map(|snapshot| snapshot.snapshot_id.as_str())
        .filter(|snapshot_id| wanted.contains(snapshot_id))
        .collect();
    if !encrypted.is_empty() {
        return fail(
            format!("encrypted: {}", encrypted.join(", ")),
            refusals::ENCRYPTED_IMAGE,
        );
    }
    let seen: BTreeSet<&str> = snapshots
        .iter()
        .map(|snapshot| snapshot.snapshot_id.as_str())
        .collect();
    let unseen: Vec<&str> = wanted.difference(&seen).copied().collect();
    if unseen.is_empty() {
        pass("no snapshot is encrypted")
    } else {
        warn(
            format!("not listed by CBS: {}", unseen.join(", ")),
            "look at the image in the console; a missing snapshot makes the cloud refuse the export",
        )
    }
}
