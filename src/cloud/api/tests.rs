//! What failures prove, and how envelopes are read.

use super::*;

fn error(replay: Replay, problem: Problem) -> ApiError {
    ApiError {
        action: "ExportImages",
        replay,
        problem,
        request_id: Some("r-1".to_owned()),
        blamed_clock: Some(DateTime::UNIX_EPOCH),
        has_newer_credentials: false,
    }
}

fn refused(replay: Replay, code: &str) -> ApiError {
    error(
        replay,
        Problem::Refused {
            code: code.into(),
            message: "words".into(),
            status: StatusCode::OK,
        },
    )
}

fn response(status: u16, body: &str) -> Response {
    Response {
        status: StatusCode::from_u16(status).expect("status"),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

#[test]
fn what_starts_something_is_never_repeated_once_it_may_have_arrived() {
    let gateway = |status| Problem::Gateway {
        status: StatusCode::from_u16(status).expect("status"),
        excerpt: CloudText::default(),
        retry_after: None,
    };
    let never = Replay::NeverOnceSent;
    for problem in [gateway(502), gateway(429), gateway(503)] {
        let error = error(never, problem);
        assert_eq!(error.again(), Again::No);
        assert!(!error.proves_nothing_happened());
    }
    for code in [
        "InternalError",
        "InternalError.Unknown",
        "ServiceUnavailable",
        "ResourceInUse",
    ] {
        assert_eq!(refused(never, code).again(), Again::No, "{code}");
        assert_eq!(refused(Replay::Safe, code).again(), Again::Later, "{code}");
    }
    // A refusal for the clock is answered at once; pauses are the caller's, who keeps a record.
    assert_eq!(
        refused(never, "AuthFailure.SignatureExpire").again(),
        Again::SignedAnew(DateTime::UNIX_EPOCH)
    );
    let throttled = "RequestLimitExceeded.UinLimitExceeded";
    assert_eq!(refused(never, throttled).again(), Again::No);
    assert!(refused(never, throttled).proves_nothing_happened());
    assert_eq!(
        refused(Replay::Safe, throttled).again(),
        Again::Throttled(None)
    );
}

#[test]
fn only_a_known_refusal_in_an_envelope_of_the_cloud_itself_is_proof() {
    let cases = [
        ("AuthFailure.SignatureFailure", true),
        ("UnauthorizedOperation", true),
        ("InvalidParameter.SnapshotNotFound", true),
        ("InvalidParameterValue.BucketNotFound", true),
        ("InvalidParameterCoexistImageIds", true),
        ("MissingParameter", true),
        ("UnknownParameter", true),
        ("UnsupportedOperation.WindowsImageExportUnsupported", true),
        ("UnsupportedRegion", true),
        ("LimitExceeded.ExportImageTaskLimitExceeded", true),
        ("RequestLimitExceeded.UinLimitExceeded", true),
        ("ResourceNotFound", true),
        ("InvalidImageId.NotFound", true),
        ("MutexOperation.TaskRunning", true),
        ("ImageQuotaLimitExceeded", true),
        ("InvalidRegion.NotFound", true),
        ("InvalidRegion.Unavailable", true),
        ("InvalidRegion.Moon", false),
        ("InternalError", false),
        ("InternalError.Unknown", false),
        ("ServiceUnavailable", false),
        ("ResourceInUse", false),
        ("ResourceInsufficient", false),
        ("FailedOperation", false),
        ("DryRunOperation", false),
        ("LimitExceededElsewhere", false),
        ("Moon.Full", false),
        ("", false),
    ];
    for (code, expected) in cases {
        let seen = refused(Replay::NeverOnceSent, code).proves_nothing_happened();
        assert_eq!(seen, expected, "asked: {code}");
        // A gateway may repeat any envelope.
        let problem = Problem::Refused {
            code: code.into(),
            message: "words".into(),
            status: StatusCode::BAD_GATEWAY,
        };
        let by_gateway = error(Replay::NeverOnceSent, problem);
        assert!(
            !by_gateway.proves_nothing_happened(),
            "asked: {code} in a 502"
        );
    }
}

#[test]
fn codes_fall_into_the_situations_that_callers_branch_on() {
    let kind = |code| refused(Replay::Safe, code).kind();
    assert_eq!(
        kind("AuthFailure.SignatureFailure"),
        ApiErrorKind::Credentials
    );
    assert_eq!(
        kind("AuthFailure.CamRoleNameAuthenticateFailed"),
        ApiErrorKind::Refused
    );
    assert_eq!(
        kind("AuthFailure.UnauthorizedOperation"),
        ApiErrorKind::NotPermitted
    );
    assert_eq!(
        kind("UnauthorizedOperation.PermissionDenied"),
        ApiErrorKind::NotPermitted
    );
    assert_eq!(kind("RequestLimitExceeded"), ApiErrorKind::Throttled);
    assert_eq!(kind("RequestLimitExceededFoo"), ApiErrorKind::Refused);
    assert_eq!(kind("InternalError"), ApiErrorKind::NoAnswer);
    assert_eq!(
        kind("LimitExceeded.ExportImageTaskLimitExceeded"),
        ApiErrorKind::Refused
    );
}

#[test]
fn odd_answers_become_errors_with_their_cause() {
    #[derive(Debug, serde::Deserialize)]
    struct Wanted {
        #[serde(rename = "TaskId")]
        _task_id: u64,
    }
    let read =
        |status, body: &str| read_envelope::<Wanted>(&response(status, body)).expect_err(body);
    assert!(matches!(read(200, "").0, Problem::Unreadable { .. }));
    assert!(matches!(read(200, "<html>").0, Problem::Unreadable { .. }));
    assert!(matches!(
        read(200, r#"{"Response":[]}"#).0,
        Problem::Unreadable { .. }
    ));
    assert!(matches!(read(502, "<html>").0, Problem::Gateway { .. }));
    let (problem, request_id) = read(
        200,
        r#"{"Response":{"TaskId":"x","RequestId":"r\u001b[2J"}}"#,
    );
    assert!(matches!(problem, Problem::Unreadable { .. }));
    assert_eq!(request_id.as_deref(), Some("r [2J"));
    let (problem, _) = read(
        200,
        r#"{"Response":{"Error":{"Code":null,"Message":"words"}}}"#,
    );
    assert!(matches!(problem, Problem::Unreadable { .. }));
    // An error envelope counts whatever the status is, and with no words as well.
    for error in [r#"{"Code":"A.B"}"#, r#"{"Code":"A.B","Message":null}"#] {
        let (problem, _) = read(400, &format!(r#"{{"Response":{{"Error":{error}}}}}"#));
        assert!(matches!(problem, Problem::Refused { .. }), "{error}");
    }
}

#[test]
fn errors_name_code_request_and_words() {
    let error = refused(Replay::Safe, "A.B");
    assert_eq!(
        error.to_string(),
        "ExportImages was refused (A.B, request r-1): words"
    );
}
