//! Every effect that the simulator can lay on a call, and what a client sees of a call that has met it.

use cvm_export::simulator::Effect;

use super::operations::{Answer, Need, Operation, Purpose};

/// What one attempt of a request may take where calls hang.
pub(super) const ATTEMPT_MILLISECONDS: u64 = 1000;
/// No body of a call comes in time at less.
const SLOW_BYTES_PER_SECOND: u64 = 100;
/// The client's own limit for an answer.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;

/// What a client sees of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// The right answer, in time.
    Nothing,
    /// No whole or readable answer; another attempt may bring one.
    NoAnswer,
    /// An answer that says nothing, and would say nothing again.
    Nonsense,
    /// Too many requests.
    Throttled,
    /// The caller may not do this.
    Denied,
    /// The caller's keys are not accepted.
    Credentials,
    /// Understood, and refused.
    Refused,
    /// What was asked for is not there.
    NotThere,
    /// The server's clock is far from the one that was signed with.
    Clock,
    /// A readable answer that holds less than the truth, and ends the run with this code.
    Misleading(i32),
}

/// The effects that can matter to any call, at a strength that matters and, where they have one, at
/// one that must not.
pub(super) fn general() -> Vec<Effect> {
    let api = |code: &str| Effect::ApiError {
        code: code.to_owned(),
    };
    let cos = |status, code: &str| Effect::CosError {
        status,
        code: code.to_owned(),
    };
    vec![
        Effect::ResetBefore,
        Effect::ProcessedThenReset,
        Effect::DelayBefore { milliseconds: 150 },
        Effect::DelayBefore { milliseconds: 1800 },
        Effect::DelayAfter { milliseconds: 150 },
        Effect::DelayAfter { milliseconds: 1800 },
        Effect::SlowBody {
            bytes_per_second: 1_000_000,
        },
        Effect::SlowBody {
            bytes_per_second: 5,
        },
        Effect::StalledBody { after_bytes: 10 },
        Effect::TruncatedBody { after_bytes: 10 },
        Effect::ShortBodyAgreeing { bytes: 10 },
        Effect::Status { status: 429 },
        Effect::Status { status: 500 },
        Effect::Status { status: 502 },
        Effect::Status { status: 503 },
        Effect::StatusAfter { status: 429 },
        Effect::StatusAfter { status: 502 },
        api("InternalError"),
        api("RequestLimitExceeded"),
        api("ResourceUnavailable"),
        api("AuthFailure.SecretIdNotFound"),
        api("AuthFailure.SignatureExpire"),
        api("UnauthorizedOperation"),
        api("InvalidImageId.NotFound"),
        api("InvalidParameter.RoleNotExist"),
        api("LimitExceeded.ExportImageTaskLimitExceeded"),
        api("Moon.Full"),
        cos(500, "InternalError"),
        cos(503, "SlowDown"),
        cos(403, "AccessDenied"),
        cos(403, "InvalidAccessKeyId"),
        cos(404, "NoSuchBucket"),
        cos(409, "FileAlreadyExists"),
        cos(409, "PathConflict"),
        cos(400, "MoonFull"),
        Effect::Garbage,
        Effect::EmptyBody,
        Effect::HugeBody { bytes: 10_000 },
        Effect::HugeBody {
            bytes: ANSWER_LIMIT_BYTES + 1,
        },
        Effect::ExtraField {
            name: "Unforeseen".to_owned(),
        },
        Effect::ClockOffset { seconds: 200 },
        Effect::ClockOffset { seconds: 3600 },
        Effect::ClockOffset { seconds: -3600 },
        Effect::WrongDate {
            date: "Sat, 31 Dec 262142 23:59:59 GMT".to_owned(),
        },
        Effect::ExpiredToken,
        Effect::ChangedObject,
        Effect::RefusedKeys {
            keys: 1,
            code: "AccessDenied".to_owned(),
        },
        Effect::FlippedByte { at: 0 },
        Effect::WrongContentRange,
        Effect::WholeForRange,
        Effect::Redirect {
            location: "http://127.0.0.1:9/elsewhere".to_owned(),
        },
    ]
}

/// The effects that can apply to calls of `operation`: those of the other protocol's errors cannot, and
/// fields are the operation's own.
pub(super) fn of(operation: &Operation) -> Vec<Effect> {
    let applies = |effect: &Effect| match effect {
        Effect::ApiError { .. } => !operation.is_cos,
        Effect::CosError { .. } => operation.is_cos,
        _ => true,
    };
    let mut effects: Vec<Effect> = general().into_iter().filter(applies).collect();
    for field in operation.fields {
        let name = field.name.to_owned();
        effects.push(Effect::MissingField { name: name.clone() });
        effects.push(Effect::NullField { name });
    }
    effects
}

/// Whether calls that meet `effect` end by the client's own limit for an attempt.
pub(super) fn is_hanging(effect: &Effect) -> bool {
    match effect {
        Effect::DelayBefore { milliseconds } | Effect::DelayAfter { milliseconds } => {
            *milliseconds > ATTEMPT_MILLISECONDS
        }
        Effect::SlowBody { bytes_per_second } => *bytes_per_second < SLOW_BYTES_PER_SECOND,
        Effect::StalledBody { .. } | Effect::Hold { .. } | Effect::HoldAfter { .. } => true,
        _ => false,
    }
}

/// What a call of `operation` shows of `effect`. Whoever adds an effect to the simulator has to say it
/// here, and to name the effect above.
pub(super) fn harm(effect: &Effect, operation: &Operation) -> Harm {
    let when = |is_harmful: bool, harm: Harm| if is_harmful { harm } else { Harm::Nothing };
    let has_body = matches!(operation.answer, Answer::Document | Answer::Missing);
    let is_read = operation.answer == Answer::Document;
    match effect {
        Effect::ResetBefore
        | Effect::ProcessedThenReset
        | Effect::Hold { .. }
        | Effect::HoldAfter { .. } => Harm::NoAnswer,
        Effect::DelayBefore { .. } | Effect::DelayAfter { .. } => {
            when(is_hanging(effect), Harm::NoAnswer)
        }
        Effect::SlowBody { .. } => when(has_body && is_hanging(effect), Harm::NoAnswer),
        Effect::StalledBody { .. } | Effect::TruncatedBody { .. } => when(has_body, Harm::NoAnswer),
        // Where nothing stands, and where nothing is told, the status says it all.
        Effect::ShortBodyAgreeing { .. }
        | Effect::Garbage
        | Effect::EmptyBody
        | Effect::FlippedByte { .. } => when(is_read, Harm::NoAnswer),
        Effect::HugeBody { bytes } => when(
            *bytes > ANSWER_LIMIT_BYTES && operation.answer != Answer::Head,
            Harm::Nonsense,
        ),
        Effect::Status { status } | Effect::StatusAfter { status } => match status {
            429 => Harm::Throttled,
            _ => Harm::NoAnswer,
        },
        Effect::ApiError { code } => of_api(code, operation.name),
        Effect::CosError { status, .. } if operation.answer == Answer::Head => match status {
            403 => Harm::Denied,
            404 => Harm::NotThere,
            500..=599 => Harm::NoAnswer,
            _ => Harm::Refused,
        },
        // The self-test of the header is refused by this very code when all goes well.
        Effect::CosError { code, .. } if operation.purpose == Purpose::Test => {
            when(code != "FileAlreadyExists", of_cos(code))
        }
        Effect::CosError { code, .. } => of_cos(code),
        Effect::MissingField { name } => lacking(operation, name, |field| field.when_missing),
        Effect::NullField { name } => lacking(operation, name, |field| field.when_null),
        Effect::ClockOffset { seconds } => when(seconds.abs() > 300, Harm::Clock),
        // COS says so in a body, and its status is 400.
        Effect::ExpiredToken if operation.answer == Answer::Head => Harm::Nonsense,
        Effect::ExpiredToken => Harm::Credentials,
        Effect::Redirect { .. } => Harm::Nonsense,
        // A date that no clock shows is passed over.
        Effect::WrongDate { .. }
        | Effect::ExtraField { .. }
        | Effect::ChangedObject
        // No export deletes.
        | Effect::RefusedKeys { .. }
        | Effect::WrongContentRange
        | Effect::WholeForRange => Harm::Nothing,
    }
}

fn of_api(code: &str, operation: &str) -> Harm {
    match code {
        "InternalError" | "ResourceUnavailable" => Harm::NoAnswer,
        "RequestLimitExceeded" => Harm::Throttled,
        "AuthFailure.SecretIdNotFound" | "AuthFailure.SignatureExpire" => Harm::Credentials,
        "UnauthorizedOperation" => Harm::Denied,
        "InvalidImageId.NotFound" if operation == "DescribeImages" => Harm::NotThere,
        "InvalidParameter.RoleNotExist" if operation.contains("Role") => Harm::NotThere,
        _ => Harm::Refused,
    }
}

fn of_cos(code: &str) -> Harm {
    match code {
        "InternalError" => Harm::NoAnswer,
        "SlowDown" => Harm::Throttled,
        "AccessDenied" => Harm::Denied,
        "InvalidAccessKeyId" => Harm::Credentials,
        "NoSuchBucket" => Harm::NotThere,
        _ => Harm::Refused,
    }
}

fn lacking(
    operation: &Operation,
    name: &str,
    need: impl Fn(&super::operations::Field) -> Need,
) -> Harm {
    let field = operation.fields.iter().find(|field| field.name == name);
    match field.map(need) {
        None | Some(Need::Spare) => Harm::Nothing,
        Some(Need::Vital) => Harm::NoAnswer,
        Some(Need::Misleads(exit)) => Harm::Misleading(exit),
    }
}
