//! `image --authorize`, when and only when the role is not there.

use super::*;

#[test]
fn image_makes_the_role_when_and_only_when_its_check_fails() {
    let env = TestEnv::new();
    env.line(&format!("image {LINUX} --authorize --yes"))
        .ends_with(0);
    env.assert_changes(&[]);

    let env = fresh();
    env.line(&format!("image {LINUX} --authorize --yes"))
        .ends_with(0)
        .says("done: create role `CVM_QcsRole`");
    env.assert_changes(&["CreateRole", "CreatePolicy", "AttachRolePolicy"]);
    env.assert_submits(1);
    env.assert_authorized();
}

#[test]
fn image_makes_no_role_for_an_export_that_is_refused_anyway() {
    let env = fresh();
    for (line, reason) in [
        (
            "image --id img-window03 --bucket exports --prefix p",
            "Windows",
        ),
        ("image --id img-toobig05 --bucket exports --prefix p", "500"),
        (
            "image --id img-nowhere1 --bucket exports --prefix p",
            "no image",
        ),
        (
            &format!("image {LINUX} --max-cost 0.01"),
            "`--max-cost` allows",
        ),
    ] {
        for consent in ["--yes", "--dry-run"] {
            env.line(&format!("{line} --authorize {consent}"))
                .ends_with(3)
                .says("is refused anyway, so no role is made for it")
                .says(reason)
                .does_not_say("create role");
        }
    }
    let two = "image --id img-linux001,img-faraway6 --prefix {image_id}";
    env.line(&format!(
        "{two} --bucket exports --max-cost 0.01 --authorize --yes"
    ))
    .ends_with(3);
    env.assert_changes(&[]);
    // The calls in the log are the cloud's own dry runs.
    assert!(env.cloud.change(|world| world.started_tasks().is_empty()));
    // One that can be exported is enough, and so is the price that is allowed.
    env.line("image --id img-window03,img-linux001 --bucket exports --prefix {image_id} --authorize --yes --max-cost 1000")
        .ends_with(10);
    env.assert_authorized();
    // A copy is judged as the copy, and a check that is skipped does not count.
    for line in [
        "image --id img-linux001 --bucket north --prefix c --copy-to-bucket-region --authorize --yes",
        "image --id img-window03 --bucket north --prefix w --copy-to-bucket-region --skip-check platform --authorize --yes",
    ] {
        let env = fresh();
        env.cloud.change(|world| {
            world.copy_seconds = Some(0.0);
            world.add_bucket("north-1250000000", "ap-beijing".parse().expect("region"));
        });
        drop(env.line(line));
        let (_, policies) = env.access();
        assert_eq!(policies, ["cvm-export-north-1250000000"], "{line}");
    }
}

#[test]
fn the_policy_is_for_the_region_of_the_bucket_and_not_of_the_image() {
    let env = fresh();
    env.cloud.change(|world| {
        world.copy_seconds = Some(0.0);
        world.add_bucket("north-1250000000", "ap-beijing".parse().expect("region"));
    });
    env.line(
        "image --id img-linux001 --bucket north --prefix p --region ap-guangzhou --poll-interval 100ms \
         --copy-to-bucket-region --authorize --yes",
    )
    .ends_with(0);
    let document = |env: &TestEnv| env.cloud.change(|world| world.policies[0].document.clone());
    assert!(
        document(&env).contains("qcs::cos:ap-beijing:"),
        "{}",
        document(&env)
    );

    let env = fresh();
    env.line("authorize --bucket exports --region ap-singapore --yes")
        .ends_with(0);
    assert!(
        document(&env).contains("qcs::cos:ap-guangzhou:"),
        "{}",
        document(&env)
    );
}

#[test]
fn a_role_that_may_write_to_another_bucket_alone_is_given_this_one_too() {
    let env = fresh();
    env.cloud.change(|world| {
        world.add_bucket("other-1250000000", "ap-guangzhou".parse().expect("region"));
    });
    env.line(AUTHORIZE).ends_with(0);
    let line = "image --id img-linux001 --bucket other --prefix p --poll-interval 100ms";
    env.line(line)
        .ends_with(3)
        .says("nothing that allows writing to bucket `other-1250000000`");
    env.line(&format!("{line} --authorize --yes")).ends_with(0);
    env.line("check --bucket exports").ends_with(0);
    // One that was edited by hand to allow more is for the cloud to judge.
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.cloud.change(|world| {
        let document = json!({"version": "2.0", "statement": [{"effect": "allow",
            "action": ["name/cos:*"], "resource": ["*"], "condition": {}}]});
        world.policies[0].document = document.to_string();
    });
    let run = env.line("check --bucket exports").ends_with(0);
    assert!(run.stdout.contains("it is not certain"), "{}", run.stdout);
}

#[test]
fn another_bucket_and_another_prefix_stay_closed() {
    let env = fresh();
    env.cloud.change(|world| {
        let region = "ap-guangzhou".parse().expect("region");
        world.add_bucket("other-1250000000", region);
    });
    env.line(AUTHORIZE).ends_with(0);
    let line = "image --id img-linux001 --bucket other --prefix p";
    env.line(line)
        .ends_with(3)
        .says("nothing that allows writing to bucket `other-1250000000`");
    env.line(&format!("{line} --skip-check role"))
        .ends_with(5)
        .says("InvalidBucketPermissionForExport");
    env.line("authorize --bucket exports --prefix p --yes")
        .ends_with(0)
        .says("replace what policy");
    let line = "image --id img-linux001 --bucket exports --prefix q";
    env.line(line)
        .ends_with(3)
        .says("nothing that allows writing to bucket `exports-1250000000` under `q`");
    env.line(&format!("{line} --authorize --yes"))
        .ends_with(3)
        .says("`--authorize` replaces none");
    env.line(&format!("{line} --skip-check role"))
        .ends_with(5)
        .says("InvalidBucketPermissionForExport")
        .says("`cvm-export authorize --bucket exports-1250000000` shows");
    env.line(&format!("image {LINUX}")).ends_with(0);
}
