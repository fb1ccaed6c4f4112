//! How a run must end that meets a fault: what the contract says (design.md, sections 4 and 6 to 8).

use cvm_export::simulator::Effect;

use super::Case;
use super::effects::{self, Harm};
use super::operations::{ANY, operation};

/// How a run must end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) exit: i32,
    /// How many exports the cloud has started in the end.
    pub(super) tasks: usize,
    /// What must stand on stderr.
    pub(super) says: Option<&'static str>,
}

impl Expected {
    fn exit(exit: i32) -> Self {
        Self {
            exit,
            // Everything up to 5 ends a run before its submit, or refuses it.
            tasks: usize::from(!(1..=5).contains(&exit)),
            says: None,
        }
    }

    fn saying(self, says: &'static str) -> Self {
        Self {
            says: Some(says),
            ..self
        }
    }
}

pub(super) fn expected(case: &Case) -> Expected {
    let is_for_ever = case.occurrence.is_none();
    match case.call.as_str() {
        "ExportImages" => submit(&case.effect, is_for_ever),
        "PutObject" => claim(&case.effect, is_for_ever),
        "*" => every_call(&case.effect),
        // What fails in the watch is looked at again.
        _ if !is_for_ever && !case.is_before_submit => Expected::exit(0),
        "HeadObject" => head_object(&case.effect, is_for_ever),
        name => {
            let operation = operation(name).expect("a described operation");
            let harm = effects::harm(&case.effect, operation);
            match harm {
                Harm::Clock if name != "HeadBucket" => clock(name, &case.effect, is_for_ever),
                harm => look_up(name, harm, is_for_ever),
            }
        }
    }
}

/// A look-up before the submit.
fn look_up(name: &str, harm: Harm, is_for_ever: bool) -> Expected {
    let exit = match (name, harm) {
        (_, Harm::Nothing) => 0,
        (_, Harm::NoAnswer | Harm::Throttled) if !is_for_ever => 0,
        (_, Harm::Misleading(exit)) => exit,
        // The list of buckets knows of the bucket, too.
        ("HeadBucket", _) => 0,
        // The watch does without; what these show of the progress is a convenience.
        ("ListParts", _) => 0,
        (_, Harm::Credentials) => 4,
        // Nothing can be done before bucket and region are known.
        ("GetService", Harm::NoAnswer | Harm::Nonsense) => 1,
        ("GetService", Harm::Throttled | Harm::Refused) => 5,
        ("GetService", Harm::Denied) => 2,
        ("GetService", Harm::NotThere) => 3,
        // "Not permitted to look" is unknown, and unknown stops four of the checks.
        ("DescribeImages", Harm::NotThere) => 3,
        ("DescribeImages", _) => 4,
        // A role that is not there is known.
        ("GetRole" | "ListAttachedRolePolicies", Harm::NotThere) => 3,
        _ => 0,
    };
    Expected::exit(exit)
}

/// A refusal by a clock that is far off is answered by one new signature, by the clock that refused.
/// Where one call alone meets such a clock, its second attempt meets a right one, and is refused.
fn clock(name: &str, effect: &Effect, is_for_ever: bool) -> Expected {
    let is_cos = operation(name).is_some_and(|operation| operation.is_cos);
    // COS calls a signature from the past expired, which is no matter of the credentials.
    let is_expired = is_cos && matches!(effect, Effect::ClockOffset { seconds } if *seconds < 0);
    match name {
        _ if is_for_ever => Expected::exit(0),
        "GetService" if is_expired => Expected::exit(2),
        _ if is_expired => Expected::exit(0),
        _ => Expected::exit(4),
    }
}

/// HEAD of the export's files: 403 and 404 are answers, all else is none; no look ends the watch, but
/// uploads that were seen and end in nothing do.
fn head_object(effect: &Effect, is_for_ever: bool) -> Expected {
    let operation = operation("HeadObject").expect("a described operation");
    match effects::harm(effect, operation) {
        _ if !is_for_ever => Expected::exit(0),
        Harm::Nothing | Harm::Clock => Expected::exit(0),
        Harm::NotThere => Expected::exit(7).saying("is gone from the bucket"),
        Harm::Denied => Expected::exit(6).saying("(403)"),
        // Four attempts at each look leave no time for three looks.
        Harm::NoAnswer | Harm::Throttled => Expected::exit(6),
        _ => Expected::exit(6).saying("three looks in a row got no usable answer"),
    }
}

/// The claim is a convenience, and its lack is said.
fn claim(effect: &Effect, is_for_ever: bool) -> Expected {
    let operation = operation("PutObject").expect("a described operation");
    let done = Expected::exit(0);
    match effects::harm(effect, operation) {
        Harm::Nothing => done,
        Harm::NoAnswer | Harm::Throttled if !is_for_ever => done,
        Harm::Clock => done,
        // Another run may have put it; it had not, so the second put says nothing of the first.
        Harm::Refused if !is_for_ever => done,
        _ => done.saying("the record could not be kept in the bucket"),
    }
}

/// The submit: once, unless it is certain that nothing was started.
fn submit(effect: &Effect, is_for_ever: bool) -> Expected {
    let operation = operation("ExportImages").expect("a described operation");
    let accepted = Expected::exit(0);
    let lost = "the answer to the submit was lost";
    // It may run, and does: the bucket tells.
    let found = || Expected::exit(0).saying(lost);
    // It may run, and does not: nobody can know.
    let unknown = || Expected {
        tasks: 0,
        ..Expected::exit(11).saying(lost)
    };
    match effect {
        Effect::ApiError { code } => match code.as_str() {
            // Proves nothing.
            "InternalError" => unknown(),
            "RequestLimitExceeded" | "LimitExceeded.ExportImageTaskLimitExceeded"
                if !is_for_ever =>
            {
                accepted
            }
            code if code.starts_with("AuthFailure") || code == "UnauthorizedOperation" => {
                Expected::exit(4)
            }
            _ => Expected::exit(5),
        },
        Effect::ExpiredToken => Expected::exit(4),
        Effect::ResetBefore | Effect::Status { .. } | Effect::Redirect { .. } => unknown(),
        _ if effects::harm(effect, operation) == Harm::Clock => {
            clock("ExportImages", effect, is_for_ever)
        }
        _ if effects::harm(effect, operation) == Harm::Nothing => accepted,
        _ => found(),
    }
}

/// The same at every call: the first ends the run, where it can.
fn every_call(effect: &Effect) -> Expected {
    match effect {
        // The list of buckets is no call of the API, so the image's is the first to decide.
        Effect::ApiError { .. } => {
            let operation = operation("DescribeImages").expect("a described operation");
            match effects::harm(effect, operation) {
                Harm::Refused if is_about_roles(effect) => Expected::exit(3),
                harm => look_up("DescribeImages", harm, true),
            }
        }
        Effect::ClockOffset { .. } => Expected::exit(0),
        _ => look_up("GetService", effects::harm(effect, &ANY), true),
    }
}

/// A failed check weighs more than one whose answer is unknown.
fn is_about_roles(effect: &Effect) -> bool {
    matches!(effect, Effect::ApiError { code } if code.contains("Role"))
}
