//! Every refusal of the cloud and every check, through the binary: finding, remedy, exit code, and no
//! submit.

use cvm_export::simulator::{Effect, Fault, Image, Policy, Role, World};

use crate::support::{TestEnv, fault};

/// One way in which an export cannot be made.
struct Case {
    name: &'static str,
    spoil: fn(&mut World),
    line: &'static str,
    check: &'static str,
    says: &'static str,
    remedy: &'static str,
}

const LINUX: &str = "--id img-linux001 --bucket exports --prefix p";

fn image(world: &mut World) -> &mut Image {
    world.image_mut("img-linux001").expect("the sample")
}

fn role(world: &mut World) -> &mut Role {
    world.role_mut("CVM_QcsRole").expect("the sample")
}

/// What the checks find before anything is submitted.
const FOUND_BEFORE: &[Case] = &[
    Case {
        name: "a shared image",
        spoil: |_| {},
        line: "--id img-shared04 --bucket exports --prefix p",
        check: "image-type",
        says: "shared by another account",
        remedy: "SyncImages",
    },
    Case {
        name: "a public image",
        spoil: |world| image(world).image_type = "PUBLIC_IMAGE".to_owned(),
        line: LINUX,
        check: "image-type",
        says: "public",
        remedy: "make a custom image",
    },
    Case {
        name: "a marketplace image",
        spoil: |world| image(world).image_type = "MARKET_IMAGE".to_owned(),
        line: LINUX,
        check: "image-type",
        says: "marketplace",
        remedy: "make a custom image",
    },
    Case {
        name: "an image that failed",
        spoil: |world| image(world).state = "CREATEFAILED".to_owned(),
        line: LINUX,
        check: "image-state",
        says: "CREATEFAILED",
        remedy: "make a new image",
    },
    Case {
        name: "an image that is not there",
        spoil: |_| {},
        line: "--id img-nowhere --bucket exports --prefix p",
        check: "image-state",
        says: "there is no image `img-nowhere` in ap-guangzhou",
        remedy: "cvm-export images",
    },
    Case {
        name: "an image of another region",
        spoil: |_| {},
        line: "--id img-faraway6 --bucket exports --prefix p",
        check: "image-state",
        says: "it was found in ap-singapore",
        remedy: "--region ap-singapore",
    },
    Case {
        name: "Windows",
        spoil: |_| {},
        line: "--id img-window03 --bucket exports --prefix p",
        check: "platform",
        says: "holds Windows",
        remedy: "licence",
    },
    Case {
        name: "Red Hat",
        spoil: |world| {
            image(world).platform = "RedHat".to_owned();
            image(world).os_name = "Red Hat Enterprise Linux 9".to_owned();
        },
        line: LINUX,
        check: "license",
        says: "holds Red Hat",
        remedy: "licence",
    },
    Case {
        name: "a disk of 501 GB",
        spoil: |world| image(world).disks[0].size_gib = 501,
        line: LINUX,
        check: "disk-size",
        says: "has 501 GB (limit 500 GB)",
        remedy: "500 GB",
    },
    Case {
        name: "a disk of 600 GB",
        spoil: |_| {},
        line: "--id img-toobig05 --bucket exports --prefix p",
        check: "disk-size",
        says: "has 600 GB (limit 500 GB)",
        remedy: "500 GB",
    },
    Case {
        name: "six data disks",
        spoil: |world| with_data_disks(world, 6),
        line: LINUX,
        check: "disk-count",
        says: "6 data disks (limit 5)",
        remedy: "--system-disk-only",
    },
    Case {
        name: "an encrypted snapshot",
        spoil: |world| image(world).disks[0].encrypted = true,
        line: LINUX,
        check: "encryption",
        says: "encrypted: snap-",
        remedy: "unencrypted disk",
    },
    Case {
        name: "a bucket of another region",
        spoil: |_| {},
        line: "--id img-linux001 --bucket far --region ap-guangzhou --prefix p",
        check: "bucket-region",
        says: "bucket `far-1250000000` is in ap-singapore, the image in ap-guangzhou",
        remedy: "--region ap-singapore",
    },
    Case {
        name: "a bucket that is not there",
        spoil: |_| {},
        line: "--id img-linux001 --bucket nobody --region ap-guangzhou --prefix p",
        check: "bucket-region",
        says: "there is no bucket `nobody-1250000000` in ap-guangzhou",
        remedy: "--bucket NAME-APPID",
    },
    Case {
        name: "an account without COS",
        spoil: |world| world.buckets.clear(),
        line: "--id img-linux001 --bucket exports-1250000000 --region ap-guangzhou --prefix p",
        check: "cos-active",
        says: "no bucket at all",
        remedy: "activate COS",
    },
    Case {
        name: "no role",
        spoil: |world| world.roles.clear(),
        line: LINUX,
        check: "role",
        says: "there is no role `CVM_QcsRole`",
        remedy: "CAM console",
    },
    Case {
        name: "a role that does not trust CVM",
        spoil: |world| role(world).trust = Role::trust_in("scf.qcloud.com"),
        line: LINUX,
        check: "role",
        says: "does not trust the service CVM",
        remedy: "CAM console",
    },
    Case {
        name: "a role for encryption alone",
        spoil: |world| {
            role(world).policies = vec![Policy {
                name: "QcloudKMSAccessForCVMRole".to_owned(),
                policy_type: "QCS".to_owned(),
                writes: false,
            }];
        },
        line: LINUX,
        check: "role",
        says: "carries QcloudKMSAccessForCVMRole: nothing that allows writing",
        remedy: "QcloudCOSDataFullControl",
    },
    Case {
        name: "a prefix that leaves no room for the names",
        spoil: |_| {},
        line: "--id img-linux001 --bucket exports --prefix PPPP",
        check: "prefix",
        says: "longer than the 850 bytes",
        remedy: "shorter `--prefix`",
    },
];

fn with_data_disks(world: &mut World, count: usize) {
    let mut changed = image(world).clone();
    for _ in 0..count {
        changed = changed.with_data_disk(10);
    }
    world.add_image(changed);
}

#[test]
fn every_check_that_fails_stops_before_the_submit_with_finding_and_remedy() {
    for case in FOUND_BEFORE {
        let env = TestEnv::new();
        env.cloud.change(case.spoil);
        let line = case.line.replace("PPPP", &"p".repeat(840));
        let run = env.line(&format!("image {line}")).ends_with(3);
        assert_eq!(run.stdout, "", "{}", case.name);
        for text in [case.check, case.says, case.remedy, "nothing was submitted"] {
            assert!(
                run.stderr.contains(text),
                "{}: `{text}` is missing in\n{}",
                case.name,
                run.stderr
            );
        }
        let error = env
            .line(&format!("image {line} --output json"))
            .ends_with(3)
            .error_json();
        assert_eq!(error["schema"], "cvm-export.error.v1", "{}", case.name);
        assert_eq!(
            (error["exit_code"].as_u64(), error["kind"].as_str()),
            (Some(3), Some("precondition"))
        );
        let finding = error["findings"]
            .as_array()
            .expect("findings")
            .iter()
            .find(|finding| finding["check"] == case.check)
            .unwrap_or_else(|| panic!("{}: no finding {}", case.name, case.check));
        assert_eq!(finding["verdict"], "fail", "{}", case.name);
        env.assert_submits(0);
        let check = env
            .line(&format!("check {line} --output json"))
            .ends_with(3)
            .json();
        assert_eq!(check["schema"], "cvm-export.check.v1");
        assert_eq!(check["exportable"], false, "{}", case.name);
    }
}

#[test]
fn an_upload_of_that_name_is_attached_to_or_a_collision_as_asked() {
    let mut env = TestEnv::new();
    env.cloud
        .change(|world| world.export_seconds = Some(1000.0));
    env.line(&format!("image {LINUX} --no-wait --no-claim"))
        .ends_with(0);
    env.lose_home();
    env.line(&format!("image {LINUX} --if-exists fail"))
        .ends_with(3)
        .says("name-collision: ")
        .says("(being uploaded)")
        .says("another `--prefix`");
    // Its name is the one that the cloud gives this image's file, so it is the export that was asked for.
    env.line(&format!("image {LINUX} --poll-interval 100ms --timeout 1s"))
        .ends_with(6);
    env.assert_submits(1);
}

#[test]
fn limits_are_exact_and_the_system_disk_alone_relaxes_what_only_data_disks_break() {
    let passes = |spoil: fn(&mut World), flags: &str| {
        let env = TestEnv::new();
        env.cloud.change(spoil);
        env.line(format!("image {LINUX} --poll-interval 100ms {flags}").trim_end())
            .ends_with(0);
    };
    passes(|world| image(world).disks[0].size_gib = 500, "");
    passes(|world| with_data_disks(world, 5), "");
    passes(|world| with_data_disks(world, 6), "--system-disk-only");
    passes(
        |world| {
            let changed = image(world).clone().with_data_disk(501);
            world.add_image(changed);
        },
        "--system-disk-only",
    );
    let env = TestEnv::new();
    env.cloud
        .change(|world| image(world).disks[0].size_gib = 501);
    env.line(&format!("image {LINUX} --system-disk-only"))
        .ends_with(3);
    env.assert_submits(0);
}

/// Refusals that no look-up can foresee: the cloud's own word ends the run with 5 and a remedy.
const REFUSED_BY_THE_CLOUD: &[(&str, &str)] = &[
    ("AuthFailure.CamRoleNameAuthenticateFailed", "CAM console"),
    ("InvalidImageId.Malformed", "cvm-export images"),
    ("InvalidImageId.NotFound", "cvm-export images"),
    ("InvalidParameter.ImageIdsSnapshotIdsMustOne", "report this"),
    ("InvalidParameter.SnapshotNotFound", "make a new image"),
    (
        "InvalidParameterValue.BucketNotFound",
        "--bucket NAME-APPID",
    ),
    (
        "InvalidParameterValue.InvalidAppIdFormat",
        "--bucket NAME-APPID",
    ),
    (
        "InvalidParameterValue.InvalidBucketPermissionForExport",
        "QcloudCOSDataFullControl",
    ),
    (
        "InvalidParameterValue.InvalidFileNamePrefixList",
        "--prefix",
    ),
    ("InvalidParameterValue.InvalidImageId", "cvm-export images"),
    ("InvalidParameterValue.InvalidImageOsName", "another region"),
    ("InvalidParameterValue.InvalidImageState", "NORMAL"),
    ("InvalidParameterValue.LimitExceeded", "report this"),
    ("InvalidParameterValue.MissingLocationCosEndpoint", "ticket"),
    ("InvalidParameterValue.TooLarge", "500 GB"),
    ("LimitExceeded.ExportImageTaskLimitExceeded", "--no-queue"),
    (
        "UnsupportedOperation.EncryptedImagesNotSupported",
        "unencrypted",
    ),
    (
        "UnsupportedOperation.ImageTooLargeExportUnsupported",
        "500 GB",
    ),
    (
        "UnsupportedOperation.MarketImageExportUnsupported",
        "public image",
    ),
    (
        "UnsupportedOperation.PublicImageExportUnsupported",
        "custom image",
    ),
    (
        "UnsupportedOperation.RedHatImageExportUnsupported",
        "licence",
    ),
    (
        "UnsupportedOperation.SharedImageExportUnsupported",
        "SyncImages",
    ),
    (
        "UnsupportedOperation.WindowsImageExportUnsupported",
        "licence",
    ),
    (
        "InvalidParameter.SpecialParameterForSpecialAccount",
        "ticket",
    ),
    ("OperationDenied.AccountNotSupported", "ticket"),
];

fn refusing(code: &str) -> Vec<Fault> {
    vec![fault(
        "ExportImages",
        Effect::ApiError {
            code: code.to_owned(),
        },
    )]
}

#[test]
fn every_refusal_of_the_submit_names_code_meaning_and_remedy_and_starts_nothing() {
    for (code, remedy) in REFUSED_BY_THE_CLOUD {
        let env = TestEnv::new();
        env.cloud.set_faults(refusing(code));
        let run = env.line(&format!("image {LINUX} --no-queue")).ends_with(5);
        for text in [code, remedy, "nothing was started", "request "] {
            assert!(
                run.stderr.contains(text),
                "{code}: `{text}` is missing in\n{}",
                run.stderr
            );
        }
        env.assert_submits(1);
        // Nothing runs, so the next run may submit.
        env.line(&format!("image {LINUX} --poll-interval 100ms"))
            .ends_with(0);
        env.assert_submits(2);
    }
}

#[test]
fn a_dry_run_of_the_cloud_foresees_its_own_refusals() {
    for (code, remedy) in REFUSED_BY_THE_CLOUD {
        let env = TestEnv::new();
        env.cloud.set_faults(refusing(code));
        let run = env.line(&format!("check {LINUX} --output json"));
        let json = run.json();
        let findings = json["findings"].as_array().expect("findings");
        let dry_run = findings
            .iter()
            .find(|finding| finding["check"] == "server-dry-run")
            .expect("a finding");
        let is_later = matches!(
            *code,
            "InvalidParameterValue.InvalidImageState"
                | "LimitExceeded.ExportImageTaskLimitExceeded"
        );
        assert_eq!(
            dry_run["verdict"],
            if is_later { "warn" } else { "fail" },
            "{code}"
        );
        assert!(
            dry_run["remedy"]
                .as_str()
                .is_some_and(|text| text.contains(remedy)),
            "{code}: {dry_run}"
        );
        assert_eq!(run.code, if is_later { 0 } else { 3 }, "{code}");
    }
}

#[test]
fn what_may_not_be_looked_at_is_unknown_and_stops_only_where_it_must_be_known() {
    // The right, and whether the export goes on without it.
    for (denied, goes_on) in [
        ("DescribeImages", false),
        ("DescribeSnapshots", true),
        ("GetRole", true),
        ("ListAttachedRolePolicies", true),
        ("HeadBucket", true),
        ("ListMultipartUploads", true),
    ] {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.denied.insert(denied.to_owned()));
        let run = env.line(&format!("image {LINUX} --poll-interval 100ms"));
        assert_eq!(
            run.code,
            if goes_on { 0 } else { 4 },
            "{denied}\n{}",
            run.stderr
        );
        assert!(
            goes_on || run.stderr.contains("--print-policy"),
            "{denied}\n{}",
            run.stderr
        );
        env.assert_submits(usize::from(goes_on));
    }
    // Bucket and region in full, and neither list nor bucket may be looked at.
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.denied.insert("GetService".to_owned());
        world.denied.insert("HeadBucket".to_owned());
    });
    let full = "image --id img-linux001 --bucket exports-1250000000 --region ap-guangzhou --prefix p --poll-interval 100ms";
    env.line(full).ends_with(4);
    env.assert_submits(0);
    env.line(&format!("{full} --skip-check bucket-region"))
        .ends_with(0);
    env.assert_submits(1);
}

#[test]
fn a_bucket_is_found_out_by_the_accounts_number_where_the_list_is_closed() {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.denied.insert("GetService".to_owned()));
    env.line(&format!(
        "image {LINUX} --region ap-guangzhou --poll-interval 100ms"
    ))
    .ends_with(0);
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.denied.insert("GetService".to_owned());
        world.denied.insert("GetUserAppId".to_owned());
    });
    env.line(&format!("image {LINUX} --region ap-guangzhou"))
        .ends_with(2)
        .says("--bucket NAME-APPID --region REGION");
    env.line("image --id img-linux001 --bucket exports-1250000000")
        .ends_with(2)
        .says("--region REGION");
}

#[test]
fn a_custom_policy_that_cannot_be_read_says_nothing_and_the_export_goes_on() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        role(world).policies = vec![Policy {
            name: "exports-only".to_owned(),
            policy_type: "User".to_owned(),
            writes: true,
        }];
    });
    env.line(&format!("image {LINUX} --poll-interval 100ms"))
        .ends_with(0)
        .says("not known: role");
}

#[test]
fn skipped_checks_are_recorded_and_the_cloud_has_the_last_word() {
    let env = TestEnv::new();
    env.line("image --id img-toobig05 --bucket exports --prefix p --skip-check disk-size")
        .ends_with(5)
        .says("ImageTooLargeExportUnsupported");
    let records = crate::support::files_below(&env.state_folder().join("exports"));
    assert!(records[0].1.contains("\"disk-size\""), "{}", records[0].1);
    env.line(&format!("image {LINUX} --skip-check no-such"))
        .ends_with(2)
        .says("disk-size");
}
