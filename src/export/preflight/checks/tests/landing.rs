//! What a download after the export needs.

use super::*;

const NEEDED: u64 = 100 << 30;

#[test]
fn the_folder_must_take_files_and_hold_none_of_their_names() {
    let cases: &[Case<'_>] = &[
        (
            "no folder",
            |facts| landing_of(facts).look = Err("cannot write into `disks`".to_owned()),
            Fail,
            &["cannot write into", "--download"],
        ),
        (
            "a file of the same name",
            |facts| landing_of(facts).in_the_way = vec!["p_xvda.raw".to_owned()],
            Fail,
            &["`p_xvda.raw`", "--force"],
        ),
        (
            "one that is replaced",
            |facts| {
                landing_of(facts).in_the_way = vec!["p_xvda.raw".to_owned()];
                landing_of(facts).replaces = true;
            },
            Pass,
            &["can be made in `disks`"],
        ),
    ];
    assert_cases(CheckName::DownloadFolder, cases);
    let mut facts = facts();
    landing_of(&mut facts).in_the_way = vec!["p_xvda.raw".to_owned()];
    facts.existing = Existing::Exported(Box::new(samples::record(&facts.request, &[50])));
    let finding = find(&facts, IfExists::Reuse, CheckName::DownloadFolder);
    assert_finding(&"files that are only compared", &finding, Pass, &[]);
}

#[test]
fn too_little_room_stops_only_what_cannot_leave_holes() {
    fn room(facts: &mut Facts, free: Option<u64>, is_raw: bool, keeps_holes: bool) {
        let landing = landing_of(facts);
        landing.is_raw = is_raw;
        landing.look = Ok(FolderLook {
            free_bytes: free,
            keeps_holes,
        });
    }
    let cases: &[Case<'_>] = &[
        (
            "just enough, in another format",
            |facts| room(facts, Some(NEEDED), false, false),
            Pass,
            &["107374182400 are free"],
        ),
        (
            "enough for much raw disk",
            |facts| room(facts, Some(NEEDED), true, true),
            Warn,
            &["107 GB", "--format qcow2", "internal network"],
        ),
        (
            "enough for little raw disk",
            |facts| {
                room(facts, Some(NEEDED), true, false);
                landing_of(facts).disk_bytes = Some(1 << 30);
            },
            Pass,
            &[],
        ),
        (
            "too little, with holes",
            |facts| room(facts, Some(NEEDED - 1), true, true),
            Warn,
            &["zeros take no room", "--format qcow2"],
        ),
        (
            "too little, without holes",
            |facts| room(facts, Some(NEEDED - 1), true, false),
            Fail,
            &["107374182400 bytes", "107374182399 are free", "make room"],
        ),
        (
            "too little, in another format",
            |facts| room(facts, Some(1), false, false),
            Warn,
            &["may be smaller"],
        ),
        (
            "a file system that does not tell",
            |facts| room(facts, None, true, true),
            Unknown,
            &["does not tell"],
        ),
        (
            "disks of unknown size",
            |facts| landing_of(facts).disk_bytes = None,
            Unknown,
            &["sizes are not known"],
        ),
        (
            "no folder",
            |facts| landing_of(facts).look = Err("no".to_owned()),
            Unknown,
            &["download-folder"],
        ),
    ];
    assert_cases(CheckName::DownloadRoom, cases);
}

#[test]
fn the_right_to_read_is_proven_or_missing_or_not_seen() {
    assert_cases(
        CheckName::DownloadRight,
        &[
            (
                "denied",
                |facts| landing_of(facts).right = denied(),
                Fail,
                &["name/cos:GetObject"],
            ),
            (
                "no answer",
                |facts| landing_of(facts).right = silent(),
                Unknown,
                &["no answer came", "which hosts answer"],
            ),
        ],
    );
}
