//! Retention: which exports replace each other, and that the newest complete one of them stays.

use std::collections::BTreeSet;

use cvm_export::simulator::Image;
use serde_json::Value;

use super::BUCKET;
use crate::support::TestEnv;

const RM: &str = "files rm --bucket exports --output json";

/// Five nights of one job, with a new image each night, after a `golden` export of the first image.
fn five_nights() -> TestEnv {
    let env = TestEnv::new();
    for night in 1..=5 {
        let id = format!("img-night{night}");
        env.cloud.change(|world| {
            let region = "ap-guangzhou".parse().expect("a region");
            let mut image = Image::linux(id.parse().expect("an id"), region, 50);
            image.name = format!("web01-2026112{night}");
            world.add_image(image);
        });
        if night == 1 {
            env.export(&id, "golden", "");
            env.pass(3600);
        }
        env.export(&id, "nightly/web01-{date}", "");
        env.pass(86_400);
    }
    env
}

/// What goes by a plan: prefix up to its first hyphen, and image.
fn goes(report: &Value) -> BTreeSet<String> {
    let exports = report["exports"].as_array().expect("exports");
    let names = exports.iter().map(|export| {
        let prefix = export["prefix"].as_str().expect("a prefix");
        let image_id = export["image_id"].as_str().expect("an image");
        let start = prefix.split('-').next().unwrap_or_default();
        format!("{start} {}", image_id.trim_start_matches("img-"))
    });
    names.collect()
}

fn nights(numbers: &[u32]) -> BTreeSet<String> {
    let names = numbers
        .iter()
        .map(|night| format!("nightly/web01 night{night}"));
    names.collect()
}

#[test]
fn of_five_nights_with_a_new_image_each_three_stay_and_golden_does() {
    let mut env = five_nights();
    // What one machine's journal knows, the records in the bucket tell another.
    for is_elsewhere in [false, true] {
        if is_elsewhere {
            env.lose_home();
        }
        let plan = env.line(&format!("{RM} --keep-last 3 --dry-run"));
        let plan = plan.ends_with(0).json();
        assert_eq!(goes(&plan), nights(&[1, 2]), "{plan:#}");
        assert_eq!(plan["rule"]["group_by"], "template");
        assert_eq!(plan["rule"]["keep_last"], 3);
        let group = "nightly/web01-{date} (web01)";
        let of_job = plan["groups"].as_array().expect("groups").iter();
        let mut of_job = of_job.filter(|it| it["group"] == group);
        let counts = of_job.next().expect("the job's group");
        assert_eq!((&counts["goes"], &counts["stays"]), (&2.into(), &3.into()));
        assert_eq!(plan["exports"][0]["group"], group);
        let why = "it is not one of the 3 newest complete exports of its group";
        assert_eq!(plan["exports"][0]["why"], why);
        let stays = plan["stays"].as_array().expect("stays");
        let golden = stays.iter().find(|stay| stay["group"] == "golden (web01)");
        let golden = golden.expect("the golden export stays");
        assert!(golden["export_id"].is_string(), "{golden:#}");
    }
    let text = env.line("files rm --bucket exports --keep-last 3 --dry-run");
    for line in [
        "rule: keep the 3 newest complete exports of each group; groups by template",
        "group nightly/web01-{date} (web01): 2 go, 3 stay",
        "group golden (web01): 0 go, 1 stay",
        "it is one of the 3 newest complete exports of its group",
    ] {
        assert!(text.stdout.contains(line), "{line}: {}", text.stdout);
    }
    env.line(&format!("{RM} --keep-last 3 --yes")).ends_with(0);
    let keys = env.keys();
    for (part, expected) in [
        ("golden_img-night1", 2),
        ("_img-night1", 2),
        ("_img-night2", 0),
        ("_img-night3", 2),
        ("_img-night4", 2),
        ("_img-night5", 2),
    ] {
        let count = keys.iter().filter(|key| key.contains(part)).count();
        assert_eq!(count, expected, "{part}: {keys:?}");
    }
}

#[test]
fn after_a_month_without_an_export_the_newest_stays() {
    let env = five_nights();
    env.pass(40 * 86_400);
    let plan = |flags: &str| {
        let line = format!("{RM} --older-than 30d --dry-run{flags}");
        env.line(&line).ends_with(0).json()
    };
    let report = plan("");
    assert_eq!(goes(&report), nights(&[1, 2, 3, 4]), "{report:#}");
    let why = "it is the newest complete export of its group";
    let stays = report["stays"].as_array().expect("stays");
    assert_eq!(stays.len(), 2, "{report:#}");
    assert!(stays.iter().all(|stay| stay["why"] == why), "{report:#}");
    assert_eq!(goes(&plan(" --include-newest")).len(), 6);
    // A filter by prefix or image leaves fewer exports in a group, and merges none.
    let report = plan(" --prefix nightly/*");
    assert_eq!(goes(&report), nights(&[1, 2, 3, 4]), "{report:#}");
    assert!(goes(&plan(" --id img-night2")).is_empty());
    // One that is named goes, whichever it is.
    let id = env.export_id("golden");
    let report = env.line(&format!("{RM} --export-id {id} --dry-run"));
    let report = report.ends_with(0).json();
    assert_eq!(report["exports"][0]["why"], "it is named by --export-id");
    assert_eq!(report["rule"], Value::Null);
    for line in [
        format!("{RM} --export-id {id} --include-newest"),
        format!("{RM} --export-id {id} --group-by none"),
        format!("{RM} --abort-uploads --include-newest"),
        format!("{RM} --keep-last 1 --group-by month"),
        format!("{RM} --group-by none --include-newest"),
    ] {
        env.line(&line).ends_with(2);
    }
}

#[test]
fn exports_are_grouped_as_they_are_asked_to_be() {
    let env = five_nights();
    let all = || nights(&[1, 2]);
    let golden = || BTreeSet::from(["golden night1".to_owned()]);
    for (by, keep, expected) in [
        ("template", 3, all()),
        ("image-name", 3, &all() | &golden()),
        ("image", 3, BTreeSet::new()),
        ("image", 1, golden()),
        ("none", 3, &all() | &golden()),
    ] {
        let line = format!("{RM} --keep-last {keep} --group-by {by} --dry-run");
        let report = env.line(&line).ends_with(0).json();
        assert_eq!(report["rule"]["group_by"], by);
        assert_eq!(goes(&report), expected, "{by}: {report:#}");
    }
    // Each prefix as it was expanded is a group of its own.
    let line = format!("{RM} --keep-last 1 --group-by prefix --dry-run");
    let report = env.line(&line).ends_with(0).json();
    let groups = report["groups"].as_array().expect("groups");
    let prefixes: BTreeSet<&str> = groups
        .iter()
        .filter_map(|group| group["group"].as_str())
        .collect();
    assert_eq!(prefixes.len(), groups.len());
    assert!(prefixes.contains("golden"), "{report:#}");
    assert_eq!(goes(&report).len(), 6 - groups.len());
}

#[test]
fn the_listing_shows_groups_and_what_keeps_an_export() {
    let env = five_nights();
    // No number of an attempt, so it is not a lease.
    env.put("golden_img-night1.cvm-export.lease-raw-01.json");
    let listing = env.line("files --bucket exports --output json");
    let listing = listing.ends_with(0).json();
    assert_eq!(listing["group_by"], "template");
    let bucket = &listing["buckets"][0];
    assert_eq!(bucket["other_objects"], 1, "leases are not counted");
    let groups = bucket["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 2, "{bucket:#}");
    assert_eq!(groups[1]["group"], "nightly/web01-{date} (web01)");
    assert_eq!(groups[1]["exports"], 5);
    let items = listing["items"].as_array().expect("items");
    let whys: Vec<&Value> = items.iter().map(|item| &item["why"]).collect();
    assert_eq!(whys.iter().filter(|why| why.is_string()).count(), 2);
    assert_eq!(items[5]["prefix_template"], "nightly/web01-{date}");
    assert_eq!(items[5]["group"], "nightly/web01-{date} (web01)");
    let why = "it is the newest complete export of its group";
    assert_eq!(items[5]["why"], why);

    let text = env
        .line("files --bucket exports --group-by none")
        .ends_with(0);
    let newest = text.stdout.lines().filter(|line| line.contains(" newest "));
    assert_eq!(newest.count(), 1, "{}", text.stdout);
    text.says("1 group by none")
        .says("all exports: 6 exports, 6 complete");

    let rm = "files rm --bucket exports --older-than 0s --include-newest --yes";
    env.line(rm).ends_with(0);
    let left = env.cloud.change(|world| world.keys(BUCKET));
    assert_eq!(left.len(), 6 * 2 + 1, "exports and removals: {left:?}");
    assert!(left.iter().all(|key| key.contains(".lease-")), "{left:?}");
}
