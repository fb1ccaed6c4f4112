//! Whether an image may be copied as it has to be, by the cloud's own limits on copies.

use super::{Judgement, fail, pass, unknown};
use crate::export::image_copy::{CopyFacts, CopyPlan, ImageRoom};
use crate::export::preflight::facts::{Fact, Facts};
use crate::model::Region;

/// How to do without a copy.
const OTHER_BUCKET: &str =
    "use a bucket of the image's region, such as one that `--create-bucket` makes";

/// Judges what needs the copies; the table asks only where there are some.
pub(super) fn of_copies(facts: &Facts) -> Judgement {
    match &facts.copy {
        Some(copy) => image_copy(copy),
        None => pass("no copy is needed"),
    }
}

fn image_copy(facts: &CopyFacts) -> Judgement {
    let plan = &facts.plan;
    let state = plan.image.image_state.as_str();
    if state != "NORMAL" {
        return fail(
            format!("the image is {state}, and only a NORMAL one is copied"),
            "run the command again when no other operation holds the image",
        );
    }
    if plan.image.image_type != "PRIVATE_IMAGE" && !plan.makes_custom() {
        return fail(
            format!(
                "an image of the type `{}` is not copied to another region",
                plan.image.image_type
            ),
            "`--copy-shared` makes a custom copy of a shared image first; `image-type` says what to do about others",
        );
    }
    if let Some(other) = plan.other_region()
        && let Some(problem) = across_regions(plan, other)
    {
        return problem;
    }
    let mut rooms = facts.rooms.iter().filter_map(Fact::known);
    let full = rooms.find(|room| room.used >= room.quota);
    if let Some(ImageRoom {
        region,
        used,
        quota,
    }) = full
    {
        return fail(
            format!("{region} holds {used} custom images of {quota} that it may hold"),
            "delete custom images of that region that nobody needs, or apply for a larger quota",
        );
    }
    pass(told(plan))
}

/// What keeps an image from being copied to the region `other` (product page 213/4943).
fn across_regions(plan: &CopyPlan, other: &Region) -> Option<Judgement> {
    let (from, to) = (&plan.region, other);
    let data_disks = plan.image.snapshot_set.iter();
    let data_disks = data_disks.filter(|snapshot| snapshot.disk_usage != "SYSTEM_DISK");
    let data_disks = data_disks.count();
    if !to.has_images() {
        return Some(fail(
            format!("{to} is a region of storage alone, which holds no images"),
            OTHER_BUCKET,
        ));
    }
    match (from.is_mainland(), to.is_mainland()) {
        (Some(a), Some(b)) if a != b => Some(fail(
            format!(
                "{from} and {to} lie on two sides of the mainland's border, which no copy crosses"
            ),
            format!("{OTHER_BUCKET}, or apply for the copy by a ticket"),
        )),
        _ if data_disks > 0 => Some(fail(
            format!(
                "the image has {data_disks} data disks; a whole machine is not copied to another region"
            ),
            OTHER_BUCKET,
        )),
        (Some(_), Some(_)) => None,
        _ => Some(unknown(
            format!("whether images are copied from {from} to {to} is not known here"),
            format!("{OTHER_BUCKET}; `--skip-check image-copy` lets the cloud decide"),
        )),
    }
}

fn told(plan: &CopyPlan) -> String {
    match (plan.makes_custom(), plan.other_region()) {
        (true, None) => format!("a custom copy is made in {}", plan.region),
        (true, Some(other)) => format!(
            "a custom copy is made in {}, and copied to {other}; each takes 10 to 30 minutes",
            plan.region
        ),
        (false, _) => {
            let other = plan.other_region().unwrap_or(&plan.region);
            format!("a copy is made in {other}, which takes 10 to 30 minutes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples::{self, DISK_GIB};
    use crate::model::Verdict;

    fn region(text: &str) -> Region {
        text.parse().expect("region")
    }

    fn facts(from: &str, destinations: &[&str]) -> CopyFacts {
        let destinations = destinations.iter().map(|text| region(text));
        CopyFacts {
            plan: CopyPlan {
                image: samples::image(&[DISK_GIB]),
                region: region(from),
                destinations: destinations.collect(),
            },
            rooms: vec![Fact::NoAnswer("denied".to_owned())],
        }
    }

    #[test]
    fn copies_stay_on_their_side_of_the_border() {
        let cases = [
            ("ap-guangzhou", "ap-beijing", Verdict::Pass),
            ("ap-singapore", "eu-frankfurt", Verdict::Pass),
            ("ap-guangzhou", "ap-hongkong", Verdict::Fail),
            ("na-ashburn", "ap-shanghai", Verdict::Fail),
            ("ap-guangzhou", "ap-osaka", Verdict::Unknown),
            ("ap-shanghai-fsi", "ap-shanghai", Verdict::Unknown),
            ("ap-jinan-ec", "ap-guangzhou", Verdict::Unknown),
            ("ap-guangzhou", "ap-beijing-1", Verdict::Fail),
        ];
        for (from, to, expected) in cases {
            let judgement = image_copy(&facts(from, &[to]));
            assert_eq!(judgement.verdict, expected, "{from} to {to}");
            let is_mended = judgement.remedy.is_some();
            assert_eq!(is_mended, expected != Verdict::Pass, "{from} to {to}");
        }
    }

    #[test]
    fn a_whole_machine_is_copied_within_its_region_only() {
        for (destinations, expected) in [
            (["ap-beijing"].as_slice(), Verdict::Fail),
            (&["ap-guangzhou"], Verdict::Pass),
            (&["ap-guangzhou", "ap-beijing"], Verdict::Fail),
        ] {
            let mut facts = facts("ap-guangzhou", destinations);
            facts.plan.image = samples::image(&[DISK_GIB, DISK_GIB]);
            facts.plan.image.image_type = "SHARED_IMAGE".into();
            if destinations == ["ap-beijing"] {
                facts.plan.image.image_type = "PRIVATE_IMAGE".into();
            }
            let judgement = image_copy(&facts);
            assert_eq!(judgement.verdict, expected, "{destinations:?}");
        }
    }

    #[test]
    fn type_state_and_quota_are_looked_at_first() {
        let verdict = |change: fn(&mut CopyFacts)| {
            let mut facts = facts("ap-guangzhou", &["ap-beijing"]);
            change(&mut facts);
            image_copy(&facts).verdict
        };
        let room = |used| {
            Fact::Known(ImageRoom {
                region: region("ap-beijing"),
                used,
                quota: 500,
            })
        };
        assert_eq!(verdict(|_| ()), Verdict::Pass);
        assert_eq!(
            verdict(|facts| facts.plan.image.image_state = "SYNCING".into()),
            Verdict::Fail
        );
        assert_eq!(
            verdict(|facts| facts.plan.image.image_type = "SHARED_IMAGE".into()),
            Verdict::Fail
        );
        for (used, expected) in [(499, Verdict::Pass), (500, Verdict::Fail)] {
            let mut facts = facts("ap-guangzhou", &["ap-beijing"]);
            facts.rooms = vec![room(used)];
            assert_eq!(image_copy(&facts).verdict, expected, "{used}");
        }
    }
}
