//! The files of other tools: tccli's profiles and the SDKs' credentials.

use super::*;

/// What a tccli profile holds beside its keys, and what comes of it: the token and the end of the
/// keys, or words of why it cannot be used.
type Profile<'a> = (&'a str, Result<(Option<&'a str>, Option<i64>), &'a str>);

#[test]
fn tccli_profiles_of_every_type_are_used_or_named_as_what_cannot_be() {
    let role = "no connection to metadata.tencentyun.com";
    let cases: [Profile<'_>; 22] = [
        ("", Ok((None, None))),
        (
            r#","token":"dontshowme-t""#,
            Ok((Some("dontshowme-t"), None)),
        ),
        (r#","token":"""#, Ok((None, None))),
        (
            r#","token":null,"type":null,"expiresAt":null"#,
            Ok((None, None)),
        ),
        (r#","type":"""#, Ok((None, None))),
        (r#","unforeseen":{"deep":[1]}"#, Ok((None, None))),
        (r#","role-arn":"","role-session-name":"""#, Ok((None, None))),
        (r#","use-cvm-role":false"#, Ok((None, None))),
        (r#","use-cvm-role":"False""#, Ok((None, None))),
        (r#","use-cvm-role":null"#, Ok((None, None))),
        (
            r#","type":"oauth","token":"dontshowme-t","expiresAt":1800000001"#,
            Ok((Some("dontshowme-t"), Some(NOW + 1))),
        ),
        (
            r#","type":"sso","token":"dontshowme-t","expiresAt":1800000001"#,
            Ok((Some("dontshowme-t"), Some(NOW + 1))),
        ),
        (
            r#","type":"oauth","token":"dontshowme-t","expiresAt":1800000000"#,
            Err("tccli auth login"),
        ),
        (
            r#","type":"oauth","token":"dontshowme-t","expiresAt":1799999999"#,
            Err("are over"),
        ),
        (
            r#","type":"sso","token":"dontshowme-t","expiresAt":0"#,
            Err("are over"),
        ),
        (r#","role-arn":"r""#, Err("no resource name of a role")),
        (r#","type":"cvm-role""#, Err(role)),
        (r#","use-cvm-role":true"#, Err(role)),
        (r#","use-cvm-role":"True""#, Err(role)),
        (r#","type":"moon""#, Err("its type `moon` is not known")),
        (
            r#","expiresAt":"dontshowme""#,
            Err("no JSON of the expected form"),
        ),
        (
            r#","token":["dontshowme"]"#,
            Err("no JSON of the expected form"),
        ),
    ];
    for (rest, expected) in cases {
        let home = Home::new()
            .with(DEFAULT_PROFILE, &tccli("x", rest))
            .with(SDK_FILE, &sdk("sdk"));
        let resolved = home.resolve(&[], Flags::default());
        match expected {
            Err(word) => assert_broken(
                rest,
                resolved,
                &["tccli profile `default`", "default.credential", word],
            ),
            Ok((token, expires_at)) => {
                let resolved =
                    resolved.unwrap_or_else(|error| panic!("asked: {rest}; seen: {error}"));
                let Credentials {
                    secret_id,
                    token: seen,
                    expires_at: end,
                    ..
                } = &resolved.credentials;
                assert_eq!(secret_id, "AKIDx", "asked: {rest}");
                assert_eq!(seen.as_ref().map(Secret::expose), token, "asked: {rest}");
                assert_eq!(end.map(|end| end.timestamp()), expires_at, "asked: {rest}");
            }
        }
    }
}

#[test]
fn a_profile_of_a_role_needs_no_keys_to_be_told_apart() {
    for text in [r#"{"type":"cvm-role"}"#, r#"{"use-cvm-role":true}"#] {
        let home = Home::new()
            .with(DEFAULT_PROFILE, text)
            .with(SDK_FILE, &sdk("sdk"));
        assert_broken(
            text,
            home.resolve(&[], Flags::default()),
            &["no connection to metadata.tencentyun.com"],
        );
    }
}

#[test]
fn a_profile_without_usable_keys_is_broken_not_absent() {
    let cases = [
        ("{}", "lacks `secretId` or `secretKey`"),
        (r#"{"secretId":"AKIDx"}"#, "lacks `secretId` or `secretKey`"),
        (
            r#"{"secretKey":"dontshowme"}"#,
            "lacks `secretId` or `secretKey`",
        ),
        (
            r#"{"secret_id":"AKIDx","secret_key":"dontshowme"}"#,
            "lacks `secretId` or `secretKey`",
        ),
        (
            r#"{"secretId":"","secretKey":"dontshowme"}"#,
            "the SecretId is empty",
        ),
        (
            r#"{"secretId":"AKIDx","secretKey":"dontshowme\n"}"#,
            "the SecretKey has a blank",
        ),
        (
            r#"{"secretId":"AKIDx","secretKey":"dontshowme","token":"dontshow me"}"#,
            "the token holds characters",
        ),
    ];
    for (text, expected) in cases {
        let home = Home::new()
            .with(DEFAULT_PROFILE, text)
            .with(SDK_FILE, &sdk("sdk"));
        assert_broken(
            text,
            home.resolve(&[], Flags::default()),
            &["tccli profile `default`", expected],
        );
    }
}

#[test]
fn malformed_files_are_named_with_the_place_of_the_fault_and_without_their_text() {
    let malformed = [
        "",
        "dontshowme",
        "\"dontshowme\"",
        "[\"dontshowme\"]",
        "{\"secretKey\":\"dontshowme",
        "{\"secretKey\":dontshowme}",
        "{\"secretKey\":{\"dontshowme\":1}}",
        "{\"secretKey\":\"a\",\"secretKey\":\"dontshowme\"}",
        "{\"dontshowme\"}",
        "{\"secretId\":\"AKIDx\",\"secretKey\":\"dontshowme\"} dontshowme",
        "{\n\"secretKey\": \"dontshowme\\q\"}",
    ];
    for text in malformed {
        let home = Home::new()
            .with(DEFAULT_PROFILE, text)
            .with(".tccli/default.configure", text)
            .with(SDK_FILE, &sdk("sdk"));
        assert_broken(
            text,
            home.resolve(&[], Flags::default()),
            &["default.credential", "line ", "column "],
        );
    }
    let home = Home::new().with(".tccli/default.configure", r#"{"_sys_param":"dontshowme"}"#);
    let error = profile_region(&home.environment(&[]), None)
        .expect_err("malformed")
        .to_string();
    assert!(
        error.contains("default.configure") && error.contains("line 1"),
        "{error}"
    );
    assert_hidden("configure", &error);
}

#[test]
fn a_file_that_cannot_be_read_is_broken_not_absent() {
    let folder = Home::new()
        .with(".tccli/default.credential/x", "")
        .with(SDK_FILE, &sdk("sdk"));
    assert_broken(
        "a folder",
        folder.resolve(&[], Flags::default()),
        &["default.credential", "no regular file"],
    );
    let home = Home::new().with(DEFAULT_PROFILE, "");
    std::fs::write(home.path(DEFAULT_PROFILE), b"\xff{dontshowme").expect("written");
    assert_broken(
        "no UTF-8",
        home.resolve(&[], Flags::default()),
        &["default.credential", "cannot be read"],
    );
}

#[test]
fn the_sdks_file_is_read_as_the_sdks_read_it() {
    let good = [
        "[default]\nsecret_id=AKIDx\nsecret_key=dontshowme-x",
        "[default]\r\nsecret_id = AKIDx\r\nsecret_key = dontshowme-x\r\n",
        "; a comment\n# another\n\n[default]\n  secret_id = AKIDx\n  secret_key = dontshowme-x\n",
        "[other]\nsecret_id = AKIDother\nsecret_key = dontshowme-other\n[default]\nsecret_id = AKIDx\nsecret_key = dontshowme-x\n",
        "[default]\nsecret_key = dontshowme-x\nrole_arn = ignored\nsecret_id = AKIDx\n[default2]\nsecret_id = AKIDy\n",
    ];
    for text in good {
        let home = Home::new().with(SDK_FILE, text);
        assert_eq!(
            owner(text, home.resolve(&[], Flags::default())).0,
            "x",
            "asked: {text}"
        );
    }
    // What looks like a comment within a line is part of the value, and so is a second delimiter.
    for key in [
        "dontshowme#1",
        "dontshowme;1",
        "dontshowme=1",
        "dontshowme:1",
    ] {
        let home = Home::new().with(
            SDK_FILE,
            &format!("[default]\nsecret_id=AKIDx\nsecret_key={key}\n"),
        );
        let resolved = home.resolve(&[], Flags::default()).expect("keys");
        assert_eq!(resolved.credentials.secret_key.expose(), key);
        assert!(
            resolved.credentials.token.is_none(),
            "the file knows no token"
        );
    }
}

#[test]
fn an_sdk_file_without_usable_keys_is_broken_and_shows_nothing() {
    let lacks = "lacks `secret_id` or `secret_key`";
    let cases = [
        ("", lacks),
        ("[default]\n", lacks),
        ("[default]\nsecret_id = AKIDx\n", lacks),
        ("[default]\nsecret_key = dontshowme\n", lacks),
        ("[default]\nsecret_id =\nsecret_key = dontshowme\n", lacks),
        ("[default]\nsecret_id\nsecret_key = dontshowme\n", lacks),
        (
            "[other]\nsecret_id = AKIDx\nsecret_key = dontshowme\n",
            lacks,
        ),
        ("[default\nsecret_key = dontshowme\n", "it is no INI file"),
        ("[dontshowme\n", "it is no INI file"),
        ("= dontshowme\n", "it is no INI file"),
        (
            "[default]\nsecret_id = AKIDx\nsecret_key = dontshowme dontshowme\n",
            "the SecretKey holds characters",
        ),
    ];
    for (text, expected) in cases {
        let home = Home::new().with(SDK_FILE, text);
        assert_broken(
            text,
            home.resolve(&[], Flags::default()),
            &[".tencentcloud", expected],
        );
    }
}

#[test]
fn a_variable_names_another_sdk_file_that_must_then_be_there() {
    let home = Home::new()
        .with(SDK_FILE, &sdk("usual"))
        .with("elsewhere/keys.ini", &sdk("named"));
    let named = home.path("elsewhere/keys.ini").display().to_string();
    let (seen, origin) = owner(
        "named",
        home.resolve(&[(CREDENTIALS_FILE, &named)], Flags::default()),
    );
    assert_eq!((seen.as_str(), &origin), ("named", &named));
    let (seen, _) = owner(
        "empty",
        home.resolve(&[(CREDENTIALS_FILE, "")], Flags::default()),
    );
    assert_eq!(seen, "usual");
    let missing = home.path("elsewhere/missing.ini").display().to_string();
    let resolved = home.resolve(&[(CREDENTIALS_FILE, &missing)], Flags::default());
    assert_broken(
        "missing",
        resolved,
        &["missing.ini", CREDENTIALS_FILE, "no such file"],
    );
    // It stands behind the profile, as the usual one does.
    let home = home.with(DEFAULT_PROFILE, &tccli("profile", ""));
    let (seen, _) = owner(
        "behind",
        home.resolve(&[(CREDENTIALS_FILE, &missing)], Flags::default()),
    );
    assert_eq!(seen, "profile");
    // And it needs no home folder.
    let environment = Environment::new([(CREDENTIALS_FILE, named)], None);
    let resolved = resolve(&chain(&environment, Flags::default()), DateTime::UNIX_EPOCH);
    assert_eq!(owner("no home", resolved).0, "named");
}

#[test]
fn the_region_is_read_from_new_and_old_profiles() {
    let cases = [
        (
            r#"{"_sys_param":{"region":"ap-tokyo","output":"json"}}"#,
            Some("ap-tokyo"),
        ),
        (r#"{"region":"ap-seoul"}"#, Some("ap-seoul")),
        (
            r#"{"_sys_param":{"region":"ap-tokyo"},"region":"ap-seoul"}"#,
            Some("ap-tokyo"),
        ),
        (
            r#"{"_sys_param":{"output":"json"},"region":"ap-seoul"}"#,
            Some("ap-seoul"),
        ),
        (
            r#"{"_sys_param":{"region":""},"region":"ap-seoul"}"#,
            Some("ap-seoul"),
        ),
        (r#"{"_sys_param":{"region":null},"region":""}"#, None),
        // The region's own product has the same name, and tccli writes it into every profile.
        (
            r#"{"_sys_param":{"region":"ap-tokyo"},"region":{"endpoint":"region.tencentcloudapi.com"}}"#,
            Some("ap-tokyo"),
        ),
        (r#"{"region":{"version":"2022-06-27"}}"#, None),
        (r#"{"_sys_param":null}"#, None),
        (r#"{"cvm":{"endpoint":"cvm.tencentcloudapi.com"}}"#, None),
        ("{}", None),
    ];
    for (text, expected) in cases {
        let home = Home::new().with(".tccli/default.configure", text);
        let seen = profile_region(&home.environment(&[]), None);
        let seen = seen.unwrap_or_else(|error| panic!("asked: {text}; seen: {error}"));
        assert_eq!(
            seen.as_ref().map(|(region, _)| region.as_str()),
            expected,
            "asked: {text}"
        );
        assert!(
            seen.is_none_or(|(_, place)| place.contains("default.configure")),
            "asked: {text}"
        );
    }
}

#[test]
fn the_region_is_that_of_the_named_profile_and_none_where_there_is_no_file() {
    let configure = |region: &str| format!(r#"{{"_sys_param":{{"region":"{region}"}}}}"#);
    let home = Home::new()
        .with(".tccli/default.configure", &configure("ap-default"))
        .with(".tccli/one.configure", &configure("ap-one"))
        .with(".tccli/two.configure", &configure("ap-two"));
    let by_variable: &[(&str, &str)] = &[(PROFILES[0], "two")];
    let cases = [
        (&[][..], None, Some("ap-default")),
        (&[][..], Some("one"), Some("ap-one")),
        (by_variable, None, Some("ap-two")),
        (by_variable, Some("one"), Some("ap-one")),
        (&[][..], Some("nine"), None),
    ];
    for (variables, flag, expected) in cases {
        let seen = profile_region(&home.environment(variables), flag).expect("readable");
        let seen = seen.map(|(region, _)| region);
        assert_eq!(seen.as_deref(), expected, "asked: {variables:?}, {flag:?}");
    }
    let homeless = Environment::default();
    assert!(
        profile_region(&homeless, None)
            .expect("nothing to read")
            .is_none()
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_used_with_a_warning() {
    for (name, text) in [(DEFAULT_PROFILE, tccli("x", "")), (SDK_FILE, sdk("x"))] {
        for (mode, is_warned_of) in [
            (0o600, false),
            (0o400, false),
            (0o640, true),
            (0o604, true),
            (0o620, true),
        ] {
            let home = Home::new().with(name, &text).mode(name, mode);
            let resolved = home.resolve(&[], Flags::default()).expect("keys");
            let path = home.path(name).display().to_string();
            assert_eq!(
                resolved.warnings.len(),
                usize::from(is_warned_of),
                "asked: {name} {mode:o}"
            );
            for warning in &resolved.warnings {
                assert!(
                    warning.contains(&format!("chmod 600 {path}")),
                    "asked: {name} {mode:o}; seen: {warning}"
                );
                assert_hidden(name, warning);
            }
        }
    }
}

#[test]
fn a_file_that_is_none_or_has_no_end_is_refused() {
    let home = Home::new().with(".tencentcloud/credentials", "");
    let file = std::fs::File::options()
        .write(true)
        .open(home.path(".tencentcloud/credentials"));
    let file = file.expect("it was written");
    file.set_len(FILE_LIMIT_BYTES + 1).expect("a sparse file");
    let refused = home.resolve(&[], Flags::default()).expect_err("too large");
    assert!(refused.to_string().contains("more than"), "{refused}");
    std::fs::remove_file(home.path(".tencentcloud/credentials")).expect("it is there");
    std::fs::create_dir(home.path(".tencentcloud/credentials")).expect("a folder");
    let refused = home.resolve(&[], Flags::default()).expect_err("a folder");
    assert!(refused.to_string().contains("no regular file"), "{refused}");
}

#[test]
#[cfg(unix)]
fn nobody_waits_for_a_pipe_that_nobody_writes() {
    let home = Home::new().with(".tencentcloud/credentials", "");
    let pipe = home.path(".tencentcloud/credentials");
    std::fs::remove_file(&pipe).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo starts").success());
    let refused = home.resolve(&[], Flags::default()).expect_err("a pipe");
    assert!(refused.to_string().contains("no regular file"), "{refused}");
}

#[test]
fn what_cannot_be_looked_at_is_absent_only_where_it_may_be_another_persons() {
    use io::ErrorKind::{NotADirectory, NotFound, Other, PermissionDenied};
    for (error, has_folder, is_absent) in [
        (NotFound, false, true),
        (NotFound, true, true),
        (NotADirectory, false, true),
        (PermissionDenied, false, true),
        (PermissionDenied, true, false),
        (Other, false, false),
    ] {
        let why = super::super::why_absent(error, has_folder);
        assert_eq!(
            why.is_some(),
            is_absent,
            "asked: {error:?} {has_folder}; seen: {why:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_broken_and_not_absent() {
    let home = Home::new();
    std::fs::create_dir_all(home.path(".tccli")).expect("a folder");
    std::os::unix::fs::symlink("/nowhere/at/all", home.path(".tccli/default.credential"))
        .expect("a link");
    let found = home.resolve(&[], Flags::default());
    assert_broken("a link", found, &["a link that leads nowhere"]);
}
