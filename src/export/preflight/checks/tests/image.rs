//! What the image itself decides.

use super::*;

const OF_IMAGE: &[CheckName] = &[
    CheckName::ImageType,
    CheckName::ImageState,
    CheckName::Platform,
    CheckName::License,
    CheckName::DiskSize,
    CheckName::DiskCount,
];

#[test]
fn what_needs_the_image_says_why_it_is_not_known() {
    for check in OF_IMAGE {
        assert_cases(
            *check,
            &[
                (
                    "denied",
                    |facts| facts.image = denied(),
                    Unknown,
                    &["denied by CAM", "cvm:DescribeImages"],
                ),
                (
                    "silent",
                    |facts| facts.image = silent(),
                    Unknown,
                    &["no answer came"],
                ),
                (
                    "not asked",
                    |facts| facts.image = Fact::NotAsked,
                    Unknown,
                    &["not looked up"],
                ),
            ],
        );
    }
}

#[test]
fn an_image_that_is_not_here_fails_and_names_the_region_that_has_it() {
    for check in OF_IMAGE {
        assert_cases(
            *check,
            &[
                (
                    "nowhere",
                    |facts| facts.image = Fact::Known(None),
                    Fail,
                    &[
                        "no image `img-1` in ap-guangzhou",
                        "cvm-export images --region",
                    ],
                ),
                (
                    "elsewhere",
                    |facts| {
                        facts.image = Fact::Known(None);
                        facts.found_in = vec![region("ap-singapore"), region("ap-tokyo")];
                    },
                    Fail,
                    &["it was found in ap-singapore", "--region ap-singapore"],
                ),
            ],
        );
    }
}

#[test]
fn an_image_alone_is_judged_by_its_six_checks() {
    let findings = check_image(&samples::image(&[501]), DiskScope::WholeMachine);
    let names: Vec<CheckName> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(names, OF_IMAGE);
    for finding in findings {
        let expected = if finding.check == CheckName::DiskSize {
            Fail
        } else {
            Pass
        };
        assert_finding(&"an image of 501 GB", &finding, expected, &[]);
    }
}

#[test]
fn only_custom_images_pass_and_others_say_how_to_get_one() {
    assert_cases(
        CheckName::ImageType,
        &[
            (
                "shared",
                |facts| image_of(facts).image_type = "SHARED_IMAGE".into(),
                Fail,
                &["shared", "SyncImages"],
            ),
            (
                "public",
                |facts| image_of(facts).image_type = "PUBLIC_IMAGE".into(),
                Fail,
                &["public", "make a custom image"],
            ),
            (
                "market",
                |facts| image_of(facts).image_type = "MARKET_IMAGE".into(),
                Fail,
                &["marketplace", "make a custom image"],
            ),
            (
                "new type",
                |facts| image_of(facts).image_type = "MOON_IMAGE".into(),
                Warn,
                &["`MOON_IMAGE`"],
            ),
        ],
    );
}

#[test]
fn image_states_pass_fail_or_wait() {
    let cases = [
        ("NORMAL", Pass),
        ("CREATEFAILED", Fail),
        ("IMPORTFAILED", Fail),
        ("DELETING", Fail),
        ("CREATING", Warn),
        ("SYNCING", Warn),
        ("IMPORTING", Warn),
        ("USING", Warn),
        ("DREAMING", Warn),
    ];
    for (state, expected) in cases {
        let mut facts = facts();
        image_of(&mut facts).image_state = state.into();
        assert_finding(
            &state,
            &find(&facts, IfExists::Fail, CheckName::ImageState),
            expected,
            &[state],
        );
    }
}

#[test]
fn windows_and_red_hat_are_recognised_in_every_spelling() {
    use CheckName::{License, Platform};
    let cases = [
        (
            "Windows",
            "Windows Server 2019 DataCenter 64bit",
            Platform,
            Fail,
        ),
        ("windows", "", Platform, Fail),
        ("", "WINDOWS SERVER 2008", Platform, Fail),
        (
            "Other",
            "Windows Server 2022 数据中心版 64位中文版",
            Platform,
            Fail,
        ),
        ("Other Windows", "custom", Platform, Fail),
        ("Ubuntu", "Ubuntu Server 22.04", Platform, Pass),
        ("Other Linux", "", Platform, Pass),
        ("", "TencentOS Server 3.1", Platform, Pass),
        ("", "", Platform, Unknown),
        ("RedHat", "Red Hat Enterprise Linux 8.5", License, Fail),
        ("redhat", "", License, Fail),
        ("", "red_hat 7", License, Fail),
        ("Other", "Red-Hat 9", License, Fail),
        ("", "RHEL 8", License, Fail),
        ("Other Linux", "rhel8", License, Fail),
        ("CentOS", "CentOS 7.9 64bit", License, Pass),
        ("Ubuntu", "", License, Pass),
        ("", "", License, Unknown),
    ];
    for (platform, system, check, expected) in cases {
        let mut facts = facts();
        image_of(&mut facts).platform = platform.into();
        image_of(&mut facts).os_name = system.into();
        assert_finding(
            &(platform, system),
            &find(&facts, IfExists::Fail, check),
            expected,
            &[],
        );
    }
}

#[test]
fn each_disk_may_hold_500_gb_and_the_switch_spares_only_data_disks() {
    use DiskScope::{SystemDiskOnly, WholeMachine};
    let cases: [(&[u64], DiskScope, Verdict, &[&str]); 9] = [
        (
            &[500],
            WholeMachine,
            Pass,
            &["largest disk has 500 GB", "limit 500 GB"],
        ),
        (
            &[501],
            WholeMachine,
            Fail,
            &["the system disk snap-0 has 501 GB", "limit 500 GB"],
        ),
        (&[500, 500], WholeMachine, Pass, &["500"]),
        (
            &[50, 501],
            WholeMachine,
            Fail,
            &["the data disk snap-1 has 501 GB", "--system-disk-only"],
        ),
        (
            &[501, 50, 600],
            WholeMachine,
            Fail,
            &["system disk snap-0 has 501", "data disk snap-2 has 600"],
        ),
        (
            &[50, 501],
            SystemDiskOnly,
            Pass,
            &["largest disk has 50 GB"],
        ),
        (&[500, 501], SystemDiskOnly, Pass, &["500"]),
        (
            &[501],
            SystemDiskOnly,
            Fail,
            &["the system disk snap-0 has 501 GB"],
        ),
        (
            &[],
            WholeMachine,
            Unknown,
            &["no snapshots", "--skip-check disk-size"],
        ),
    ];
    for (sizes, scope, expected, words) in cases {
        let mut facts = Facts {
            image: Fact::Known(Some(samples::image(sizes))),
            ..facts()
        };
        facts.request.scope = scope;
        let finding = find(&facts, IfExists::Fail, CheckName::DiskSize);
        assert_finding(&(sizes, scope), &finding, expected, words);
    }
}

#[test]
fn five_data_disks_pass_and_the_sixth_fails_unless_it_stays_behind() {
    use DiskScope::{SystemDiskOnly, WholeMachine};
    let cases: [(usize, DiskScope, Verdict, &[&str]); 6] = [
        (0, WholeMachine, Pass, &["0 data disks"]),
        (5, WholeMachine, Pass, &["5 data disks", "limit 5"]),
        (
            6,
            WholeMachine,
            Fail,
            &["6 data disks", "limit 5", "--system-disk-only"],
        ),
        (5, SystemDiskOnly, Pass, &["of 6 disks"]),
        (
            6,
            SystemDiskOnly,
            Pass,
            &["the system disk alone, of 7 disks"],
        ),
        (20, WholeMachine, Fail, &["20 data disks"]),
    ];
    for (data_disks, scope, expected, words) in cases {
        let sizes = vec![DISK_GIB; data_disks + 1];
        let mut facts = Facts {
            image: Fact::Known(Some(samples::image(&sizes))),
            ..facts()
        };
        facts.request.scope = scope;
        let finding = find(&facts, IfExists::Fail, CheckName::DiskCount);
        assert_finding(&(data_disks, scope), &finding, expected, words);
    }
}

#[test]
fn disks_that_are_not_described_are_unknown() {
    for check in [CheckName::DiskSize, CheckName::DiskCount] {
        assert_cases(
            check,
            &[
                (
                    "no snapshots",
                    |facts| image_of(facts).snapshot_set.clear(),
                    Unknown,
                    &["lists no snapshots"],
                ),
                (
                    "odd id",
                    |facts| image_of(facts).snapshot_set[0].snapshot_id = "../x".into(),
                    Unknown,
                    &["can't be right", "../x"],
                ),
            ],
        );
    }
    let only_data = |facts: &mut Facts| {
        facts.request.scope = DiskScope::SystemDiskOnly;
        image_of(facts).snapshot_set.remove(0);
    };
    assert_cases(
        CheckName::DiskSize,
        &[(
            "no system disk",
            only_data,
            Unknown,
            &["disks are not known"],
        )],
    );
}

#[test]
fn encrypted_snapshots_fail_where_they_would_be_exported() {
    assert_cases(
        CheckName::Encryption,
        &[
            (
                "encrypted",
                |facts| {
                    facts.snapshots = Fact::Known(vec![
                        snapshot("snap-0", Some(false)),
                        snapshot("snap-1", Some(true)),
                    ])
                },
                Fail,
                &["encrypted: snap-1", "unencrypted disk"],
            ),
            (
                "another's",
                |facts| {
                    facts.snapshots = Fact::Known(vec![
                        snapshot("snap-0", None),
                        snapshot("snap-1", None),
                        snapshot("snap-9", Some(true)),
                    ])
                },
                Pass,
                &[],
            ),
            (
                "left behind",
                |facts| {
                    facts.snapshots = Fact::Known(vec![
                        snapshot("snap-0", None),
                        snapshot("snap-1", Some(true)),
                    ]);
                    facts.files.as_mut().expect("files").truncate(1);
                },
                Pass,
                &[],
            ),
            (
                "no names",
                |facts| {
                    facts.snapshots = Fact::Known(vec![snapshot("snap-0", Some(true))]);
                    facts.files = Err("too long".to_owned());
                },
                Fail,
                &["encrypted: snap-0"],
            ),
            (
                "not listed",
                |facts| facts.snapshots = Fact::Known(vec![snapshot("snap-0", None)]),
                Warn,
                &["not listed by CBS: snap-1"],
            ),
            (
                "denied",
                |facts| facts.snapshots = denied(),
                Unknown,
                &["denied by CAM", "cvm:DescribeSnapshots"],
            ),
            (
                "silent",
                |facts| facts.snapshots = silent(),
                Unknown,
                &["no answer came"],
            ),
            (
                "not asked",
                |facts| facts.snapshots = Fact::NotAsked,
                Unknown,
                &["not looked up"],
            ),
        ],
    );
}

#[test]
fn formats_whose_subtype_is_not_documented_are_warned_of() {
    let cases = [
        (ImageFormat::Raw, Pass, "as large as its disk"),
        (ImageFormat::Qcow2, Pass, "sizes are not known"),
        (ImageFormat::Vhd, Warn, "vhd"),
        (ImageFormat::Vmdk, Warn, "vmdk"),
    ];
    for (format, expected, word) in cases {
        let mut facts = facts();
        facts.request.format = format;
        assert_finding(
            &format,
            &find(&facts, IfExists::Fail, CheckName::Format),
            expected,
            &[word],
        );
    }
}
