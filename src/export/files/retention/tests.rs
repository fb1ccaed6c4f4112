//! Groups and rules, case by case.

use super::*;
use crate::export::files::{Blocked, ListedFile};
use crate::export::samples::{at, request};
use crate::model::ImageFormat;

const DAY: u64 = 86_400;

/// A complete export; of the names, an empty one is none.
fn export(prefix: &str, template: &str, image_name: &str, image_id: &str) -> ListedExport {
    let request = request();
    let text = |text: &str| (!text.is_empty()).then(|| CloudText::new(text));
    ListedExport {
        image_id: (!image_id.is_empty()).then(|| image_id.parse().expect("an id")),
        image_name: text(image_name),
        prefix: (!prefix.is_empty()).then(|| prefix.parse().expect("a prefix")),
        template: text(template),
        state: ListedState::Complete,
        exported_at: Some(at(0)),
        age_seconds: Some(40 * DAY),
        ..ListedExport::new(ImageFormat::Raw, &request.bucket, &request.region)
    }
}

fn group(export: &ListedExport, by: GroupBy) -> String {
    Key::of(export, by).to_string()
}

#[test]
fn the_group_is_the_prefix_as_written_with_the_series_of_the_image() {
    use GroupBy::{Image, ImageName, None, Prefix, Template};
    let nightly = "nightly/{image_name}-{date}";
    for (prefix, template, name, id, by, expected) in [
        (
            "nightly/web01-20261124-20261124",
            nightly,
            "web01-20261124",
            "img-1",
            Template,
            "nightly/{image_name}-{date} (web01)",
        ),
        (
            "nightly/web01-2026-11-25-20261125",
            nightly,
            "web01-2026-11-25",
            "img-2",
            Template,
            "nightly/{image_name}-{date} (web01)",
        ),
        (
            "nightly/web02-20261124",
            nightly,
            "web02",
            "img-3",
            Template,
            "nightly/{image_name}-{date} (web02)",
        ),
        (
            "golden",
            "golden",
            "web01-20261124",
            "img-1",
            Template,
            "golden (web01)",
        ),
        // Of an earlier version, and a date that the shell has put in.
        (
            "p-20261124",
            "",
            "web01",
            "img-1",
            Template,
            "p-{date} (web01)",
        ),
        (
            "p-20261125",
            "p-20261125",
            "web01",
            "img-1",
            Template,
            "p-{date} (web01)",
        ),
        (
            "p-20261126",
            "p-{date}",
            "web01",
            "img-1",
            Template,
            "p-{date} (web01)",
        ),
        ("p", "", "", "img-1", Template, "p (img-1)"),
        ("p", "", "  ", "img-1", Template, "p (img-1)"),
        ("p", "", "20261124", "img-1", Template, "p (20261124)"),
        ("", "", "db-8", "img-1", Template, "no prefix (db-8)"),
        ("", "", "db-9", "img-1", Template, "no prefix (db-9)"),
        ("p", "", "", "", Template, "p (unknown image)"),
        (
            "p-20261124",
            nightly,
            "web01-20261124",
            "img-1",
            ImageName,
            "web01",
        ),
        ("p", "", "", "img-1", ImageName, "img-1"),
        (
            "p-20261124",
            nightly,
            "web01-20261124",
            "img-1",
            Image,
            "img-1",
        ),
        (
            "p-20261124",
            nightly,
            "web01-20261124",
            "img-1",
            Prefix,
            "p-20261124",
        ),
        ("", "", "web01-20261124", "img-1", Prefix, "no prefix"),
        (
            "p-20261124",
            nightly,
            "web01-20261124",
            "img-1",
            None,
            "all exports",
        ),
    ] {
        let export = export(prefix, template, name, id);
        assert_eq!(group(&export, by), expected, "{prefix} {name} {by:?}");
    }
}

#[test]
fn what_only_looks_alike_is_not_one_group() {
    let (one, other) = (
        export("p (a)", "", "b", "img-1"),
        export("p", "", "a) (b", "img-2"),
    );
    assert_eq!(
        group(&one, GroupBy::Template),
        group(&other, GroupBy::Template)
    );
    let groups = Groups::of(&[one, other], GroupBy::Template);
    assert_eq!(groups.list.len(), 2);
    // A name of any length is looked at up to a limit.
    let long = export("p", &"1".repeat(100_000), &"1-".repeat(100_000), "img-1");
    assert!(group(&long, GroupBy::Template).len() < 4 * COMPARED);
}

/// What becomes of exports of one group, the oldest first: whether each goes.
fn fates(exports: &[ListedExport], rule: Retention) -> Vec<bool> {
    let groups = Groups::of(exports, rule.group_by);
    let choices = retained(exports, &groups, &rule);
    choices
        .iter()
        .map(|choice| matches!(choice, Choice::Remove(_)))
        .collect()
}

fn keep(last: usize) -> Retention {
    Retention {
        keep_last: NonZeroUsize::new(last),
        ..Retention::default()
    }
}

fn older_than(days: u64) -> Retention {
    Retention {
        older_than: Some(Duration::from_secs(days * DAY)),
        ..Retention::default()
    }
}

fn series(states: &[ListedState]) -> Vec<ListedExport> {
    let exports = states.iter().map(|state| ListedExport {
        state: *state,
        ..export("p", "", "web01", "img-1")
    });
    exports.collect()
}

#[test]
fn an_incomplete_export_pushes_no_complete_one_out() {
    use ListedState::{Complete, Gone, Lost, Partial};
    let exports = series(&[Partial, Complete, Complete, Partial, Complete, Lost]);
    assert_eq!(
        fates(&exports, keep(1)),
        [true, true, true, true, false, false]
    );
    assert_eq!(
        fates(&exports, keep(2)),
        [true, true, false, false, false, false]
    );
    assert_eq!(
        fates(&exports, keep(3)),
        [true, false, false, false, false, false]
    );
    assert_eq!(fates(&exports, keep(9)), [false; 6]);
    let mut unproven = series(&[Complete, Complete]);
    unproven[1].files.push(ListedFile {
        proof: Proof::None,
        ..file()
    });
    assert_eq!(fates(&unproven, keep(1)), [false, false]);
    let mut record_alone = series(&[Complete, Gone]);
    record_alone[1].is_record_alone = true;
    assert_eq!(fates(&record_alone, keep(1)), [false, true]);
}

fn file() -> ListedFile {
    ListedFile {
        key: "p_xvda.raw".parse().expect("a key"),
        version_id: None,
        is_latest: true,
        disk: None,
        device: None,
        snapshot_id: None,
        size_bytes: 1,
        etag: "e".into(),
        storage_class: "STANDARD".into(),
        last_modified: None,
        proof: Proof::Record,
        doubt: None,
    }
}

#[test]
fn the_newest_complete_export_of_a_group_stays_unless_it_is_included() {
    use ListedState::{Complete, Partial};
    let exports = series(&[Complete, Complete, Partial]);
    assert_eq!(fates(&exports, older_than(30)), [true, false, true]);
    assert_eq!(fates(&exports, older_than(50)), [false; 3]);
    let all = Retention {
        include_newest: true,
        ..older_than(30)
    };
    assert_eq!(fates(&exports, all), [true; 3]);
    // A number keeps as many whatever else is said, and both must let an export go.
    let both = Retention {
        keep_last: NonZeroUsize::new(1),
        ..all
    };
    assert_eq!(fates(&exports, both), [true, false, false]);
    let mut young = exports.clone();
    young[0].age_seconds = Some(DAY);
    assert_eq!(fates(&young, both), [false; 3]);
    young[0].age_seconds = None;
    assert_eq!(fates(&young, all), [false, true, true]);
    // Each group has a newest one.
    let mut two = series(&[Complete, Complete, Complete]);
    two[1].image_name = Some("web02".into());
    assert_eq!(fates(&two, older_than(30)), [true, false, false]);
    assert_eq!(fates(&two, keep(1)), [true, false, false]);
}

#[test]
fn what_keeps_an_export_whatever_the_rule_is_told() {
    use ListedState::Complete;
    let mut exports = series(&[Complete, Complete, Complete]);
    exports[0].blocked = Some(Box::new(Blocked::Running {
        reason: "it runs".to_owned(),
    }));
    let groups = Groups::of(&exports, GroupBy::default());
    let fate = |place: usize| groups.fate(place, &exports[place]).map(|(word, _)| word);
    assert_eq!(
        [fate(0), fate(1), fate(2)],
        [Some("blocked"), None, Some("newest")]
    );
}

#[test]
fn rules_are_told_in_words() {
    let days = |days: u64| Some(Duration::from_secs(days * DAY));
    for (keep_last, older_than, include_newest, expected) in [
        (
            3,
            None,
            false,
            "keep the 3 newest complete exports of each group; groups by template",
        ),
        (
            1,
            None,
            true,
            "keep the newest complete export of each group; groups by template",
        ),
        (
            0,
            days(30),
            false,
            "keep the newest complete export of each group and everything younger than 30d; groups by template",
        ),
        (
            0,
            days(30),
            true,
            "keep everything younger than 30d; groups by template",
        ),
        (
            2,
            days(1),
            false,
            "keep the 2 newest complete exports of each group and everything younger than 1d; groups by template",
        ),
    ] {
        let rule = Retention {
            group_by: GroupBy::Template,
            keep_last: NonZeroUsize::new(keep_last),
            older_than,
            include_newest,
        };
        assert_eq!(rule.to_string(), expected);
    }
    for (seconds, expected) in [
        (0, "0s"),
        (90, "90s"),
        (120, "2m"),
        (36 * 3600, "36h"),
        (DAY, "1d"),
    ] {
        assert_eq!(span(Duration::from_secs(seconds)), expected);
    }
}
