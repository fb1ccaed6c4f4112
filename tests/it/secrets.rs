//! No secret in any output, log, journal or claim: one test prints everything and searches.

use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::Effect;

use crate::support::{TestEnv, fault, files_below};

const KEY: &str = "key0must0never0be0seen0anywhere0";
const TOKEN: &str = "token0must0never0be0seen0either00";

#[test]
fn no_secret_is_in_any_output_log_journal_or_claim() {
    let mut env = TestEnv::new();
    env.cloud.change(|world| {
        world.accept(Credentials {
            secret_id: "AKIDsecrets".to_owned(),
            secret_key: Secret::new(KEY),
            token: Some(Secret::new(TOKEN)),
            expires_at: None,
        });
    });
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDsecrets")
        .set("TENCENTCLOUD_SECRET_KEY", KEY)
        .set("TENCENTCLOUD_TOKEN", TOKEN);
    let mut seen = Vec::new();
    let mut look = |what: &str, text: String| seen.push((what.to_owned(), text));
    for verbosity in ["-q", "-v", "-vv", "-vvv"] {
        for form in ["text", "json", "ndjson"] {
            for line in [
                "check --id img-linux001 --bucket exports --prefix p",
                "images --bucket exports",
                "image --id img-linux001 --bucket exports --prefix p --if-exists overwrite --poll-interval 100ms",
                "status",
                "image --id img-window03 --bucket exports --prefix p",
            ] {
                let line = format!("{line} {verbosity} --output {form}");
                let run = env.line(&line);
                look(&format!("stdout of `{line}`"), run.stdout);
                look(&format!("stderr of `{line}`"), run.stderr);
            }
        }
    }
    // By flags, with failures of every kind, and with a signature that is refused.
    for effect in [
        Effect::ApiError {
            code: "AuthFailure.SignatureFailure".to_owned(),
        },
        Effect::Status { status: 500 },
        Effect::Garbage,
        Effect::ResetBefore,
    ] {
        env.cloud.set_faults(vec![cvm_export::simulator::Fault {
            occurrence: None,
            ..fault("*", effect)
        }]);
        let line = format!(
            "images --bucket exports -vvv --secret-id AKIDsecrets --secret-key {KEY} --token {TOKEN}"
        );
        let run = env.line(&line);
        assert_ne!(run.code, 0);
        look("failures by flags", run.stderr);
    }
    env.cloud.set_faults(Vec::new());
    let run = env.line(&format!("images --bucket exports -vvv --secret-key {KEY}"));
    look("a key without its id", run.stderr);
    let run = env.line(&format!(
        "image --id img-1 --bucket exports --secret-key {KEY} --no-such-flag"
    ));
    look("a wrong flag", run.stderr);
    for (path, text) in files_below(env.home.path()) {
        look(&format!("file {}", path.display()), text);
    }
    let claims = env.cloud.change(|world| {
        let bucket = world.bucket_mut("exports-1250000000").expect("the sample");
        let claims = bucket
            .objects
            .iter()
            .filter(|(key, _)| key.ends_with(".json"));
        claims
            .map(|(_, object)| {
                let mut bytes =
                    vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
                object.content.read_at(0, &mut bytes).expect("the claim");
                String::from_utf8(bytes).expect("JSON")
            })
            .collect::<Vec<_>>()
    });
    assert!(!claims.is_empty());
    for claim in claims {
        look("a claim", claim);
    }
    assert!(seen.len() > 60, "{} texts were searched", seen.len());
    for (what, text) in &seen {
        for secret in [KEY, TOKEN] {
            assert!(!text.contains(secret), "a secret is in {what}:\n{text}");
        }
    }
}

#[test]
fn debug_forms_show_no_secret() {
    let credentials = Credentials {
        secret_id: "AKIDsecrets".to_owned(),
        secret_key: Secret::new(KEY),
        token: Some(Secret::new(TOKEN)),
        expires_at: None,
    };
    let environment =
        cvm_export::environment::Environment::new([("TENCENTCLOUD_SECRET_KEY", KEY)], None);
    let cloud = cvm_export::cloud::Cloud::open(
        cvm_export::cloud::CloudSettings::new(
            cvm_export::cloud::Endpoints::overridden("http://127.0.0.1:9", false)
                .expect("an endpoint"),
        ),
        credentials.clone(),
        cvm_export::event::Events::discard(),
    )
    .expect("a cloud");
    let flags = cvm_export::cloud::credentials::Flags {
        secret_key: Some(Secret::new(KEY)),
        token: Some(Secret::new(TOKEN)),
        ..Default::default()
    };
    let shown =
        format!("{credentials:?} {credentials:#?} {environment:?} {cloud:?} {cloud:#?} {flags:?}");
    assert!(shown.contains("AKIDsecrets"));
    for secret in [KEY, TOKEN] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
