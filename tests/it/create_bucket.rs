//! `image --create-bucket`: a bucket in the image's region where there is none, asked about first.

use cvm_export::simulator::Effect;

use crate::support::{TestEnv, fault, wait_until};

const LINUX: &str = "image --id img-linux001 --prefix p --poll-interval 100ms --create-bucket";

/// An account with the environment's region set, as a person has it.
fn world() -> TestEnv {
    let mut env = TestEnv::new();
    env.set("TENCENTCLOUD_REGION", "ap-guangzhou");
    env
}

fn region_of(env: &TestEnv, bucket: &str) -> Option<String> {
    env.cloud.change(|world| {
        let bucket = world.buckets.get(bucket)?;
        Some(bucket.region.to_string())
    })
}

#[test]
fn a_missing_bucket_is_made_in_the_images_region_and_exported_to() {
    for (bucket, region) in [
        ("fresh", ""),
        ("fresh-1250000000", ""),
        ("fresh", "--region ap-guangzhou "),
    ] {
        let env = world();
        let run = env
            .line(&format!("{LINUX} {region}--bucket {bucket} --yes"))
            .ends_with(0)
            .says("done: create the private bucket `fresh-1250000000` in ap-guangzhou");
        assert!(
            run.stdout
                .starts_with("cos://fresh-1250000000/p_img-linux001_system_")
        );
        assert_eq!(
            region_of(&env, "fresh-1250000000").as_deref(),
            Some("ap-guangzhou")
        );
        env.assert_submits(1);
        // It is there now: nothing is asked and nothing made.
        env.line(&format!("{LINUX} --bucket fresh --if-exists reuse"))
            .ends_with(0)
            .does_not_say("create the private bucket");
        assert_eq!(env.calls("PutBucket"), 1);
    }
}

#[test]
fn the_image_is_looked_for_where_no_flag_says_its_region() {
    // By the environment, which knows of another region, and with nothing said at all.
    for region in [Some("ap-singapore"), None] {
        let mut env = world();
        env.unset("TENCENTCLOUD_REGION");
        if let Some(region) = region {
            env.set("TENCENTCLOUD_REGION", region);
        }
        env.line(&format!("{LINUX} --bucket fresh --yes"))
            .ends_with(0)
            .says("create the private bucket `fresh-1250000000` in ap-guangzhou");
        env.assert_submits(1);
        // It is there now, and its own region counts.
        env.line(&format!("{LINUX} --bucket fresh --yes --if-exists reuse"))
            .ends_with(0);
    }
}

#[test]
fn nothing_is_made_without_consent_or_in_a_dry_run() {
    let env = world();
    env.line(&format!("{LINUX} --bucket fresh"))
        .ends_with(2)
        .says("will create the private bucket `fresh-1250000000` in ap-guangzhou")
        .says("--yes");
    env.line(&format!("{LINUX} --bucket fresh --dry-run"))
        .ends_with(3)
        .says("will create the private bucket `fresh-1250000000` in ap-guangzhou")
        .says("nothing was changed");
    // What is agreed to beforehand is said however quiet the run.
    let quiet = world();
    quiet
        .line(&format!("{LINUX} --bucket fresh --yes -q"))
        .ends_with(0)
        .says("will create the private bucket `fresh-1250000000` in ap-guangzhou");
    assert_eq!(env.calls("PutBucket"), 0);
    // The call that stands in the log is the cloud's own dry run.
    assert!(env.cloud.change(|world| world.started_tasks().is_empty()));
    // Agreed to beforehand, and nothing asks: no bucket is made that was not asked for.
    env.line("image --id img-linux001 --bucket exports --prefix p --yes")
        .ends_with(0);
    env.line("image --id img-linux001 --bucket absent --prefix p --yes")
        .ends_with(3);
    assert_eq!(env.calls("PutBucket"), 0);
}

#[test]
fn a_bucket_of_that_name_in_another_region_is_told_with_its_region() {
    let env = world();
    for region in ["", "--region ap-guangzhou "] {
        env.line(&format!("{LINUX} {region}--bucket far --yes"))
            .ends_with(3)
            .says("bucket `far-1250000000` exists already, in ap-singapore")
            .says("the image is in ap-guangzhou");
    }
    // Where the list is closed, COS itself says that the name is taken.
    env.cloud
        .change(|world| world.denied.insert("GetService".to_owned()));
    env.line(&format!("{LINUX} --bucket far --yes"))
        .ends_with(3)
        .says("the name of bucket `far-1250000000` is taken, and not in ap-guangzhou")
        .says("BucketAlreadyOwnedByYou");
    env.assert_submits(0);
    assert_eq!(
        region_of(&env, "far-1250000000").as_deref(),
        Some("ap-singapore")
    );
}

#[test]
fn no_bucket_is_made_for_an_image_that_is_elsewhere_or_cannot_be_exported() {
    let env = world();
    env.line("image --id img-faraway6 --bucket fresh --prefix p --create-bucket --yes --region ap-guangzhou")
        .ends_with(3)
        .says("use `--region ap-singapore`");
    env.line("image --id img-nowhere1 --bucket fresh --prefix p --create-bucket --yes")
        .ends_with(3)
        .says("no region has an image `img-nowhere1`");
    env.line("image --id img-window03 --bucket fresh --prefix p --create-bucket --yes")
        .ends_with(3)
        .says("no bucket is made for it")
        .says("Windows");
    env.line(&format!("{LINUX} --bucket fresh --max-cost 0.01 --yes"))
        .ends_with(3)
        .says("no bucket is made for it")
        .says("`--max-cost` allows 0.01");
    env.line("image --id img-linux001,img-multi002 --bucket fresh --prefix {image_id} --create-bucket --max-cost 0.01 --yes")
        .ends_with(3)
        .says("all exports together");
    assert_eq!(env.calls("PutBucket"), 0);
    env.assert_submits(0);
}

#[test]
fn a_lost_answer_makes_the_bucket_once() {
    for effect in [Effect::ProcessedThenReset, Effect::ResetBefore] {
        let env = world();
        env.cloud
            .set_faults(vec![fault("PutBucket", effect.clone())]);
        env.line(&format!("{LINUX} --bucket fresh --yes"))
            .ends_with(0);
        assert_eq!(
            region_of(&env, "fresh-1250000000").as_deref(),
            Some("ap-guangzhou")
        );
        env.assert_submits(1);
    }
}

#[test]
fn a_signal_while_the_bucket_is_made_says_what_stands() {
    let env = world();
    let slow = Effect::DelayAfter { milliseconds: 700 };
    env.cloud.set_faults(vec![fault("PutBucket", slow)]);
    let line = format!("{LINUX} --bucket fresh --yes");
    let words: Vec<&str> = line.split(' ').collect();
    let running = env.start(&words);
    let is_there = || region_of(&env, "fresh-1250000000").is_some();
    wait_until(|| "a bucket".to_owned(), is_there);
    running.signal("TERM");
    running
        .wait()
        .ends_with(143)
        .says("interrupted; bucket `fresh-1250000000` was made, and no export was started");
    env.assert_submits(0);
    env.line(&line).ends_with(0);
    assert_eq!(env.calls("PutBucket"), 1);
}

#[test]
fn a_missing_right_and_a_full_account_are_told() {
    let env = world();
    env.cloud
        .change(|world| world.denied.insert("PutBucket".to_owned()));
    env.line(&format!("{LINUX} --bucket fresh --yes"))
        .ends_with(4)
        .says("PUT Bucket")
        .says("--print-policy");
    env.cloud.change(|world| {
        world.denied.clear();
        world.bucket_limit = 2;
    });
    env.line(&format!("{LINUX} --bucket fresh --yes"))
        .ends_with(5)
        .says("TooManyBuckets");
    env.assert_submits(0);
}

#[test]
fn the_policy_names_the_right_only_where_it_is_asked_for() {
    let env = world();
    let policy = |flags: &str| {
        let line = format!("check --bucket exports --print-policy{flags}");
        env.line(&line).ends_with(0).stdout
    };
    assert!(!policy("").contains("name/cos:PutBucket"));
    assert!(policy(" --create-bucket").contains("name/cos:PutBucket"));
    env.line("check --bucket exports --create-bucket")
        .ends_with(2);
}

#[test]
fn a_rehearsal_makes_the_bucket_too() {
    let env = TestEnv::new();
    env.line(
        "image --simulate --id img-xxx --bucket b --prefix p --create-bucket --yes --timeout 60s",
    )
    .ends_with(0)
    .says("done: create the private bucket `b-1250000000` in ap-guangzhou");
}
