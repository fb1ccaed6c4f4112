//! Where requests go: sites, networks, domains and profiles, as the cloud sees them arrive.

use std::collections::BTreeSet;

use cvm_export::simulator::Image;

use crate::support::TestEnv;

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";

/// The hosts of all calls so far, each once.
fn hosts(env: &TestEnv) -> BTreeSet<String> {
    env.cloud
        .calls()
        .into_iter()
        .map(|call| call.host)
        .collect()
}

#[track_caller]
fn assert_hosts(env: &TestEnv, asked: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|host| (*host).to_owned()).collect();
    assert_eq!(hosts(env), expected, "asked: {asked}");
}

/// The hosts of API 3.0 among them.
fn hosts_of_api(env: &TestEnv) -> BTreeSet<String> {
    let is_api = |host: &String| host.ends_with("tencentcloudapi.com");
    hosts(env).into_iter().filter(is_api).collect()
}

fn write_profile(env: &TestEnv, name: &str, configure: &serde_json::Value) {
    let folder = env.home.path().join(".tccli");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(
        folder.join(format!("{name}.configure")),
        configure.to_string(),
    )
    .expect("a file");
}

#[test]
fn every_form_of_a_host_is_sent_and_signed_by_the_flags_that_ask_for_it() {
    let cases: [(&str, [&str; 5]); 5] = [
        (
            "--site cn",
            [
                "cam.tencentcloudapi.com",
                "cbs.tencentcloudapi.com",
                "cvm.tencentcloudapi.com",
                "service.cos.myqcloud.com",
                "exports-1250000000.cos.ap-guangzhou.myqcloud.com",
            ],
        ),
        (
            "--site intl --cos-domain tencentcos.cn",
            [
                "cam.intl.tencentcloudapi.com",
                "cbs.intl.tencentcloudapi.com",
                "cvm.intl.tencentcloudapi.com",
                "service.cos.tencentcos.cn",
                "exports-1250000000.cos.ap-guangzhou.tencentcos.cn",
            ],
        ),
        (
            "--site intl --internal",
            [
                "cam.internal.tencentcloudapi.com",
                "cbs.internal.tencentcloudapi.com",
                "cvm.internal.tencentcloudapi.com",
                "service.cos.tencentcos.cn",
                "exports-1250000000.cos-internal.ap-guangzhou.tencentcos.cn",
            ],
        ),
        (
            "--regional-api",
            [
                "cam.tencentcloudapi.com",
                "cbs.ap-guangzhou.tencentcloudapi.com",
                "cvm.ap-guangzhou.tencentcloudapi.com",
                "service.cos.myqcloud.com",
                "exports-1250000000.cos.ap-guangzhou.myqcloud.com",
            ],
        ),
        (
            "--regional-api --internal",
            [
                "cam.internal.tencentcloudapi.com",
                "cbs.internal.ap-guangzhou.tencentcloudapi.com",
                "cvm.internal.ap-guangzhou.tencentcloudapi.com",
                "service.cos.tencentcos.cn",
                "exports-1250000000.cos-internal.ap-guangzhou.tencentcos.cn",
            ],
        ),
    ];
    for (flags, expected) in cases {
        let env = TestEnv::new();
        env.line(&format!("{LINE} {flags}")).ends_with(0);
        assert_hosts(&env, flags, &expected);
        env.assert_submits(1);
    }
}

#[test]
fn a_download_comes_over_the_network_that_was_asked_for() {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.put_object("exports-1250000000", "disk.raw", "a small disk"));
    env.line("download cos://exports-1250000000/disk.raw --to . --internal")
        .ends_with(0);
    assert!(!hosts(&env).is_empty());
    for host in hosts(&env) {
        assert!(host.ends_with(".tencentcos.cn"), "{host}");
    }
}

#[test]
fn a_finance_region_is_reached_by_its_own_hosts_on_either_site() {
    for site in ["cn", "intl"] {
        let env = TestEnv::new();
        env.cloud.change(|world| {
            let region: cvm_export::model::Region = "ap-shanghai-fsi".parse().expect("a region");
            world.add_image(Image::linux(
                "img-finance1".parse().expect("an id"),
                region.clone(),
                1,
            ));
            world.add_bucket("finance-1250000000", region);
        });
        let line = format!(
            "image --id img-finance1 --bucket finance --prefix p --poll-interval 100ms --site {site}"
        );
        env.line(&line).ends_with(0);
        assert_hosts(
            &env,
            &line,
            &[
                "cam.ap-shanghai-fsi.tencentcloudapi.com",
                "cbs.ap-shanghai-fsi.tencentcloudapi.com",
                "cvm.ap-shanghai-fsi.tencentcloudapi.com",
                "service.cos.myqcloud.com",
                "finance-1250000000.cos.ap-shanghai-fsi.myqcloud.com",
            ],
        );
    }
}

#[test]
fn a_profile_sets_the_hosts_of_products_and_says_so_when_asked() {
    let env = TestEnv::new();
    write_profile(
        &env,
        "default",
        &serde_json::json!({
            "_sys_param": {"region": "ap-guangzhou", "output": "json"},
            // What tccli writes by itself into every profile.
            "cam": {"endpoint": "cam.tencentcloudapi.com", "version": "2019-01-16"},
            "cvm": {"endpoint": "cvm.ap-guangzhou.tencentcloudapi.com", "version": "2017-03-12"},
        }),
    );
    let run = env.line("images -v").ends_with(0);
    run.says("host of cvm: cvm.ap-guangzhou.tencentcloudapi.com (tccli profile `default` (")
        .does_not_say("host of cam");
    assert_hosts(&env, "a profile", &["cvm.ap-guangzhou.tencentcloudapi.com"]);
    env.cloud.clear_calls();
    env.line("images -v --site intl")
        .ends_with(0)
        .says("host of cvm: by --site");
    assert_hosts(
        &env,
        "a flag and a profile",
        &["cvm.intl.tencentcloudapi.com"],
    );
}

#[test]
fn a_profile_with_one_host_of_the_international_site_is_of_that_site() {
    let env = TestEnv::new();
    let hosts = serde_json::json!({
        "cam": {"endpoint": "cam.tencentcloudapi.com"},
        "cvm": {"endpoint": "cvm.intl.tencentcloudapi.com"},
    });
    write_profile(&env, "default", &hosts);
    env.line("image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms")
        .ends_with(0)
        .says("https://console.tencentcloud.com/cos/bucket?bucket=exports-1250000000");
    let asked = hosts_of_api(&env);
    assert!(
        asked
            .iter()
            .all(|host| host.ends_with(".intl.tencentcloudapi.com")),
        "{asked:?}"
    );
}

#[test]
fn the_hosts_that_tccli_writes_into_every_profile_leave_a_finance_region_its_own() {
    let env = TestEnv::new();
    let usual = serde_json::json!({"cvm": {"endpoint": "cvm.tencentcloudapi.com"}});
    write_profile(&env, "default", &usual);
    env.line("images --region ap-shanghai-fsi").ends_with(0);
    assert_hosts(
        &env,
        "a usual profile",
        &["cvm.ap-shanghai-fsi.tencentcloudapi.com"],
    );
}

#[test]
fn a_profile_with_a_host_that_cannot_be_meant_is_refused_before_anything_is_sent() {
    for host in [
        "https://cvm.tencentcloudapi.com",
        "cvm.tencentcloudapi.com/",
        "cvm.tencentcloudapi.com:443",
        "u:p@cvm.tencentcloudapi.com",
        "cam.tencentcloudapi.com",
        "cvm.cloud.example",
        "cvm.tencentcloudapi.com.example",
    ] {
        let env = TestEnv::new();
        write_profile(
            &env,
            "default",
            &serde_json::json!({"cvm": {"endpoint": host}}),
        );
        env.line("images --region ap-guangzhou")
            .ends_with(2)
            .says("`cvm.endpoint`")
            .says("default.configure")
            .says("`tccli configure set cvm.endpoint cvm.tencentcloudapi.com`");
        assert_hosts(&env, host, &[]);
        std::fs::rename(
            env.home.path().join(".tccli/default.configure"),
            env.home.path().join(".tccli/other.configure"),
        )
        .expect("another name");
        env.line("images --region ap-guangzhou --profile other")
            .ends_with(2)
            .says("`tccli configure set cvm.endpoint cvm.tencentcloudapi.com --profile other`");
    }
    let env = TestEnv::new();
    write_profile(
        &env,
        "default",
        &serde_json::json!({"cvm": {"endpoint": 5}}),
    );
    env.line("images --region ap-guangzhou")
        .ends_with(4)
        .says("`cvm.endpoint` is no text");
}

#[test]
fn a_host_that_is_not_tencents_needs_a_word_of_consent() {
    let env = TestEnv::new();
    let configure = serde_json::json!({"cvm": {"endpoint": "cvm.cloud.example"}});
    write_profile(&env, "default", &configure);
    env.line("images --region ap-guangzhou")
        .ends_with(2)
        .says("--allow-remote-endpoint");
    drop(env.line("images --region ap-guangzhou --allow-remote-endpoint"));
    assert_hosts(&env, "consent", &["cvm.cloud.example"]);
}

#[test]
fn an_unknown_region_is_warned_of_once_and_used() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let region: cvm_export::model::Region = "ap-osaka".parse().expect("a region");
        world.add_image(Image::linux(
            "img-newest01".parse().expect("an id"),
            region.clone(),
            1,
        ));
        world.add_bucket("osaka-1250000000", region);
    });
    let line = "image --id img-newest01 --bucket osaka --prefix p --poll-interval 100ms";
    let run = env.line(&format!("{line} --region ap-osaka")).ends_with(0);
    assert_eq!(
        run.stderr
            .matches("region ap-osaka (--region) is not among those")
            .count(),
        1,
        "{}",
        run.stderr
    );
    // The bucket's own region comes from the cloud, which knows it.
    env.line(&format!("{line} --if-exists overwrite --yes"))
        .ends_with(0)
        .does_not_say("is not among those");
    env.line("images --region ap-guangzhou")
        .ends_with(0)
        .does_not_say("is not among those");
}

#[test]
fn values_that_no_site_has_are_refused() {
    let env = TestEnv::new();
    for flags in [
        "--site us",
        "--cos-domain example.com",
        "--cos-domain tencentcos.cn --internal",
    ] {
        env.line(&format!("images --region ap-guangzhou {flags}"))
            .ends_with(2);
    }
    assert_hosts(&env, "nothing", &[]);
}

#[test]
fn a_rehearsal_takes_the_flags_as_well() {
    let env = TestEnv::new();
    let line = "image --id img-1 --bucket b --simulate --no-wait -vv";
    env.line(&format!("{line} --site intl"))
        .ends_with(0)
        .says("cvm.intl.tencentcloudapi.com");
    env.line(&format!("{line} --internal"))
        .ends_with(0)
        .says("b-1250000000.cos-internal.ap-guangzhou.tencentcos.cn");
    assert_hosts(&env, "a cloud of its own", &[]);
}

#[test]
fn nothing_of_a_finance_regions_account_is_asked_elsewhere() {
    let env = TestEnv::new();
    env.line(
        "check --region ap-shanghai-fsi --output json \
         --role-arn qcs::cam::uin/100000000001:roleName/ExportOperator",
    );
    let asked = hosts_of_api(&env);
    assert!(
        asked.contains("sts.ap-shanghai-fsi.tencentcloudapi.com"),
        "{asked:?}"
    );
    for host in asked {
        assert!(
            host.ends_with(".ap-shanghai-fsi.tencentcloudapi.com"),
            "{host}"
        );
    }
}
