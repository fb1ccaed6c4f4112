//! The chain over snapshots of an environment and folders made for each test.

mod files;

use super::*;
use crate::cloud::Endpoints;

/// Stands in every secret value; no message may ever show it.
const MARK: &str = "dontshowme";
/// When the chain is asked, in seconds.
const NOW: i64 = 1_800_000_000;

/// A home folder with files that only their owner can read.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, text).expect("written");
        self.mode(name, 0o600)
    }

    #[cfg(unix)]
    fn mode(self, name: &str, mode: u32) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).expect("a mode");
        self
    }

    #[cfg(not(unix))]
    fn mode(self, _name: &str, _mode: u32) -> Self {
        self
    }

    fn environment(&self, variables: &[(&str, &str)]) -> Environment {
        let home = Some(self.0.path().to_owned());
        Environment::new(variables.iter().map(|(name, value)| (*name, *value)), home)
    }

    fn resolve(
        &self,
        variables: &[(&str, &str)],
        flags: Flags,
    ) -> Result<Resolved, CredentialsError> {
        let now = DateTime::from_timestamp(NOW, 0).expect("a time");
        resolve(&chain(&self.environment(variables), flags), now)
    }
}

/// A chain on a machine that is no CVM, in a network where nobody answers.
fn chain(environment: &Environment, flags: Flags) -> Chain {
    let nobody = Endpoints::overridden("http://127.0.0.1:9", false).expect("an endpoint");
    let mut settings = CloudSettings::new(nobody);
    settings.retry.attempts = 1;
    Chain {
        machine: PathBuf::from("/nowhere"),
        ..Chain::standard(environment, flags, settings)
    }
}

fn resolve(chain: &Chain, now: DateTime<Utc>) -> Result<Resolved, CredentialsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(chain.resolve(now))
}

const DEFAULT_PROFILE: &str = ".tccli/default.credential";
const SDK_FILE: &str = ".tencentcloud/credentials";

/// A tccli profile with the keys of `owner` and `rest`, which begins with a comma where it is not empty.
fn tccli(owner: &str, rest: &str) -> String {
    format!(r#"{{"secretId":"AKID{owner}","secretKey":"{MARK}-{owner}"{rest}}}"#)
}

fn sdk(owner: &str) -> String {
    format!("[default]\nsecret_id = AKID{owner}\nsecret_key = {MARK}-{owner}\n")
}

/// Both variables of the environment.
fn variables(id: &'static str, key: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(SECRET_ID, id), (SECRET_KEY, key)]
}

fn profile(name: &str) -> Flags {
    Flags {
        profile: Some(name.to_owned()),
        ..Flags::default()
    }
}

fn flags(id: Option<&str>, key: Option<&str>, token: Option<&str>) -> Flags {
    Flags {
        secret_id: id.map(str::to_owned),
        secret_key: key.map(Secret::new),
        token: token.map(Secret::new),
        ..Flags::default()
    }
}

/// Whose keys were found, with their place.
fn owner(asked: &str, resolved: Result<Resolved, CredentialsError>) -> (String, String) {
    let resolved = resolved.unwrap_or_else(|error| panic!("asked: {asked}; seen: {error}"));
    let id = resolved.credentials.secret_id;
    let owner = id
        .strip_prefix("AKID")
        .expect("an id of these tests")
        .to_owned();
    assert_eq!(
        resolved.credentials.secret_key.expose(),
        format!("{MARK}-{owner}"),
        "asked: {asked}"
    );
    (owner, resolved.origin)
}

/// Asserts that a place is broken, that it is named, and that nothing shows a secret.
fn assert_broken(asked: &str, resolved: Result<Resolved, CredentialsError>, words: &[&str]) {
    let error = match resolved {
        Err(error @ CredentialsError::Broken { .. }) => error,
        other => panic!("asked: {asked}; expected: a broken place; seen: {other:?}"),
    };
    let text = format!("{error}");
    for word in words {
        assert!(
            text.contains(word),
            "asked: {asked}; expected: `{word}`; seen: {text}"
        );
    }
    assert_hidden(asked, &format!("{error:?} {error}"));
    let error = Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Credentials, "asked: {asked}");
    assert_hidden(
        asked,
        &format!("{error:?} {error} {:?} {:?}", error.causes(), error.hint()),
    );
}

fn assert_hidden(asked: &str, text: &str) {
    assert!(
        !text.contains(MARK),
        "asked: {asked}; a secret is shown: {text}"
    );
}

#[test]
fn places_are_asked_in_the_documented_order() {
    let all = || {
        Home::new()
            .with(DEFAULT_PROFILE, &tccli("profile", ""))
            .with(SDK_FILE, &sdk("sdk"))
    };
    let environment = variables("AKIDenvironment", "dontshowme-environment");
    let by_flags = flags(Some("AKIDflags"), Some("dontshowme-flags"), None);
    let cases = [
        (
            "all",
            all(),
            environment.clone(),
            by_flags,
            "flags",
            "--secret-id",
            0,
        ),
        (
            "no flags",
            all(),
            environment,
            Flags::default(),
            "environment",
            "environment variables",
            1,
        ),
        (
            "no environment",
            all(),
            vec![],
            Flags::default(),
            "profile",
            "tccli profile `default`",
            2,
        ),
        (
            "no profile",
            Home::new().with(SDK_FILE, &sdk("sdk")),
            vec![],
            Flags::default(),
            "sdk",
            ".tencentcloud",
            3,
        ),
    ];
    for (asked, home, variables, flags, expected, place, passed_over) in cases {
        let resolved = home.resolve(&variables, flags);
        if let Ok(resolved) = &resolved {
            assert_eq!(
                resolved.passed_over.len(),
                passed_over,
                "asked: {asked}; seen: {:?}",
                resolved.passed_over
            );
            assert_eq!(resolved.warnings, Vec::<String>::new(), "asked: {asked}");
            assert_hidden(asked, &format!("{resolved:?}"));
        }
        let (seen, origin) = owner(asked, resolved);
        assert_eq!(seen, expected, "asked: {asked}");
        assert!(
            origin.contains(place),
            "asked: {asked}; expected: {place}; seen: {origin}"
        );
    }
}

#[test]
fn when_no_place_has_anything_all_are_named_in_their_order() {
    let error = Home::new()
        .resolve(&[], Flags::default())
        .expect_err("nothing is there");
    let CredentialsError::Absent { places } = &error else {
        panic!("expected: absent; seen: {error}")
    };
    let expected = [
        "--secret-id",
        SECRET_ID,
        "tccli profile `default`",
        ".tencentcloud",
        ".cos.yaml",
        "TKE_ROLE_ARN",
        "no CVM",
    ];
    assert_eq!(places.len(), expected.len(), "{places:?}");
    for (place, word) in places.iter().zip(expected) {
        assert!(place.contains(word), "expected: {word}; seen: {place}");
    }
    let error = Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("tccli configure") && hint.contains("--simulate"))
    );
}

#[test]
fn without_a_home_folder_only_flags_and_environment_can_have_keys() {
    let ask = |variables: Vec<(&'static str, &'static str)>| {
        let chain = chain(&Environment::new(variables, None), Flags::default());
        resolve(&chain, DateTime::UNIX_EPOCH)
    };
    let error = ask(vec![]).expect_err("nothing is there");
    assert_eq!(
        error.to_string().matches("there is no home folder").count(),
        3,
        "{error}"
    );
    assert!(ask(variables("AKIDx", "dontshowme-x")).is_ok());
}

#[test]
fn a_broken_place_stops_the_chain_though_later_ones_have_keys() {
    let good = || {
        Home::new()
            .with(DEFAULT_PROFILE, &tccli("profile", ""))
            .with(SDK_FILE, &sdk("sdk"))
    };
    let key_alone = [(SECRET_KEY, "dontshowme")];
    let environment = variables("AKIDenvironment", "dontshowme-environment");
    type Broken<'a> = (&'a str, Vec<(&'a str, &'a str)>, Flags, &'a [&'a str]);
    let cases: [Broken<'_>; 7] = [
        (
            "id flag alone",
            environment.clone(),
            flags(Some("AKIDx"), None, None),
            &["--secret-id and --secret-key", "go together"],
        ),
        (
            "key flag alone",
            environment.clone(),
            flags(None, Some(MARK), None),
            &["go together"],
        ),
        (
            "token flag alone",
            environment.clone(),
            flags(None, None, Some(MARK)),
            &["--token"],
        ),
        (
            "id and token flags",
            environment,
            flags(Some("AKIDx"), None, Some(MARK)),
            &["go together"],
        ),
        (
            "id variable alone",
            vec![(SECRET_ID, "AKIDx")],
            Flags::default(),
            &[SECRET_KEY, "not set"],
        ),
        (
            "key variable alone",
            key_alone.to_vec(),
            Flags::default(),
            &[SECRET_ID, "not set"],
        ),
        (
            "key variable empty",
            vec![(SECRET_ID, "AKIDx"), (SECRET_KEY, "")],
            Flags::default(),
            &[SECRET_KEY, "not set"],
        ),
    ];
    for (asked, variables, flags, words) in cases {
        assert_broken(asked, good().resolve(&variables, flags), words);
    }
    let empty_variables = variables("", "");
    let (seen, _) = owner(
        "both variables empty",
        good().resolve(&empty_variables, Flags::default()),
    );
    assert_eq!(
        seen, "profile",
        "asked: both variables empty, which counts as unset"
    );
}

#[test]
fn the_token_has_two_names_that_must_not_contradict_each_other() {
    let token = |tokens: &[(&'static str, &'static str)]| {
        let mut variables = variables("AKIDx", "dontshowme-x");
        variables.extend(tokens);
        Home::new().resolve(&variables, Flags::default())
    };
    let [tccli_name, terraform_name] = TOKENS;
    type Tokens = &'static [(&'static str, &'static str)];
    let cases: [(Tokens, Option<&str>); 5] = [
        (&[], None),
        (
            &[("TENCENTCLOUD_TOKEN", "dontshowme-t")],
            Some("dontshowme-t"),
        ),
        (
            &[("TENCENTCLOUD_SECURITY_TOKEN", "dontshowme-s")],
            Some("dontshowme-s"),
        ),
        (
            &[
                ("TENCENTCLOUD_TOKEN", "dontshowme-t"),
                ("TENCENTCLOUD_SECURITY_TOKEN", "dontshowme-t"),
            ],
            Some("dontshowme-t"),
        ),
        (
            &[
                ("TENCENTCLOUD_TOKEN", ""),
                ("TENCENTCLOUD_SECURITY_TOKEN", "dontshowme-s"),
            ],
            Some("dontshowme-s"),
        ),
    ];
    for (tokens, expected) in cases {
        let resolved =
            token(tokens).unwrap_or_else(|error| panic!("asked: {tokens:?}; seen: {error}"));
        let seen = resolved.credentials.token.as_ref().map(Secret::expose);
        assert_eq!(seen, expected, "asked: {tokens:?}");
    }
    let both = token(&[
        ("TENCENTCLOUD_TOKEN", "dontshowme-1"),
        ("TENCENTCLOUD_SECURITY_TOKEN", "dontshowme-2"),
    ]);
    assert_broken(
        "two tokens that differ",
        both,
        &[tccli_name, terraform_name, "differ"],
    );
}

#[test]
fn the_token_of_the_environment_never_joins_keys_of_another_place() {
    let home = Home::new().with(DEFAULT_PROFILE, &tccli("profile", ""));
    let resolved = home
        .resolve(&[("TENCENTCLOUD_TOKEN", MARK)], Flags::default())
        .expect("keys");
    assert!(resolved.credentials.token.is_none());
    let by_flags = flags(Some("AKIDx"), Some("dontshowme-x"), None);
    let resolved = home
        .resolve(&[("TENCENTCLOUD_TOKEN", MARK)], by_flags)
        .expect("keys");
    assert!(resolved.credentials.token.is_none());
    let by_flags = flags(Some("AKIDx"), Some("dontshowme-x"), Some("dontshowme-t"));
    let resolved = home.resolve(&[], by_flags).expect("keys");
    assert_eq!(
        resolved.credentials.token.as_ref().map(Secret::expose),
        Some("dontshowme-t")
    );
}

#[test]
fn a_profile_by_flag_switches_the_environment_off_and_one_by_variable_does_not() {
    let home = Home::new()
        .with(DEFAULT_PROFILE, &tccli("default", ""))
        .with(".tccli/one.credential", &tccli("one", ""))
        .with(".tccli/two.credential", &tccli("two", ""));
    let environment = variables("AKIDenvironment", "dontshowme-environment");
    let with = |more: &[(&'static str, &'static str)]| [environment.as_slice(), more].concat();
    let named = [(PROFILES[0], "two")];
    let cases = [
        ("flag, environment", with(&[]), profile("one"), "one"),
        (
            "flag, environment, variable",
            with(&named),
            profile("one"),
            "one",
        ),
        (
            "flag, half an environment",
            vec![(SECRET_ID, "AKIDx")],
            profile("one"),
            "one",
        ),
        (
            "flag, two tokens",
            vec![(TOKENS[0], "dontshowme1"), (TOKENS[1], "dontshowme2")],
            profile("one"),
            "one",
        ),
        (
            "variable, environment",
            with(&named),
            Flags::default(),
            "environment",
        ),
        ("variable", named.to_vec(), Flags::default(), "two"),
        (
            "empty variable",
            vec![(PROFILES[0], "")],
            Flags::default(),
            "default",
        ),
        (
            "flag for the default",
            with(&named),
            profile("default"),
            "default",
        ),
    ];
    for (asked, variables, flags, expected) in cases {
        let (seen, _) = owner(asked, home.resolve(&variables, flags));
        assert_eq!(seen, expected, "asked: {asked}");
    }
    let resolved = home.resolve(&environment, profile("one")).expect("keys");
    assert!(
        resolved.passed_over[1].contains("ignored, as --profile one is given"),
        "{:?}",
        resolved.passed_over
    );
}

#[test]
fn flags_with_keys_come_before_a_profile_by_flag() {
    let home = Home::new().with(DEFAULT_PROFILE, &tccli("profile", ""));
    let both = Flags {
        profile: Some("default".to_owned()),
        ..flags(Some("AKIDflags"), Some("dontshowme-flags"), None)
    };
    assert_eq!(owner("both", home.resolve(&[], both)).0, "flags");
}

#[test]
fn a_profile_that_is_named_must_be_there() {
    let home = Home::new()
        .with(DEFAULT_PROFILE, &tccli("default", ""))
        .with(SDK_FILE, &sdk("sdk"));
    assert_broken(
        "by flag",
        home.resolve(&[], profile("nine")),
        &["tccli profile `nine`", "no such file"],
    );
    let by_variable = home.resolve(&[(PROFILES[0], "nine")], Flags::default());
    assert_broken(
        "by variable",
        by_variable,
        &["tccli profile `nine`", "no such file"],
    );
}

#[test]
fn a_profile_is_a_file_name_without_folders() {
    let home = Home::new().with(SDK_FILE, &sdk("sdk"));
    for name in [
        "",
        ".",
        "..",
        ".hidden",
        "../x",
        "a/b",
        "a\\b",
        "a\nb",
        "a\u{1b}[2J",
        "/etc/passwd",
    ] {
        assert_broken(
            name,
            home.resolve(&[], profile(name)),
            &["--profile", "file name without folders"],
        );
        let region = profile_region(&home.environment(&[]), Some(name));
        assert!(
            region.is_err(),
            "asked: the region of `{name}`; seen: {region:?}"
        );
        if !name.is_empty() {
            let by_variable = home.resolve(&[(PROFILES[0], name)], Flags::default());
            assert_broken(
                name,
                by_variable,
                &[PROFILES[0], "file name without folders"],
            );
        }
    }
}

#[test]
fn values_with_a_blank_around_or_odd_characters_in_them_are_refused() {
    let cases = [
        (" AKIDx", "dontshowme", None, "the SecretId has a blank"),
        ("AKIDx", "dontshowme ", None, "the SecretKey has a blank"),
        ("AKIDx", "dontshowme\n", None, "the SecretKey has a blank"),
        (
            "AKIDx",
            "\u{a0}dontshowme",
            None,
            "the SecretKey has a blank",
        ),
        (
            "AKIDx",
            "dontshowme",
            Some("\tdontshowme"),
            "the token has a blank",
        ),
        (
            "AKID x",
            "dontshowme",
            None,
            "the SecretId holds characters",
        ),
        (
            "AKIDx",
            "dontshowme\u{7f}",
            None,
            "the SecretKey holds characters",
        ),
        (
            "AKIDx",
            "dontshowmé-dontshowme",
            None,
            "the SecretKey holds characters",
        ),
        (
            "AKIDx",
            "dontshowme",
            Some("dontshowme\r\nHost: x"),
            "the token holds characters",
        ),
        ("", "dontshowme", None, "the SecretId is empty"),
        ("AKIDx", "", None, "the SecretKey is empty"),
        ("AKIDx", "dontshowme", Some(""), "the token is empty"),
    ];
    for (id, key, token, expected) in cases {
        let resolved = Home::new().resolve(&[], flags(Some(id), Some(key), token));
        assert_broken(
            &format!("{id:?} {key:?} {token:?}"),
            resolved,
            &[expected, "--secret-id"],
        );
    }
    let blank = vec![
        (SECRET_ID, "AKIDx"),
        (SECRET_KEY, "dontshowme "),
        (TOKENS[0], "dontshowme"),
    ];
    assert_broken(
        "environment",
        Home::new().resolve(&blank, Flags::default()),
        &[SECRET_KEY, "has a blank"],
    );
}

#[test]
fn debug_output_of_flags_and_chain_shows_no_secret() {
    let flags = flags(Some("AKIDx"), Some("dontshowme-x"), Some("dontshowme-t"));
    let environment = Environment::new(variables("AKIDx", "dontshowme-x"), None);
    assert_hidden(
        "debug",
        &format!("{flags:?} {:?}", chain(&environment, flags.clone())),
    );
}
