//! How a run must end that meets a fault: what the contract says.
//!
//! What a run could not learn about the leases, and a lease that it could not write, ends it before the submit; only
//! a missing right to write lets it go on. After the submit, leases are a convenience.

use cvm_export::simulator::Effect;

use super::Case;
use super::effects::{self, Harm};
use super::operations::{ANY, Operation, Purpose, operation};

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
    pub(super) fn exit(exit: i32) -> Self {
        Self {
            exit,
            // Everything up to 5 ends a run before its submit, or refuses it.
            tasks: usize::from(!(1..=5).contains(&exit)),
            says: None,
        }
    }

    /// Whether nothing of the fault shows.
    fn is_untroubled(&self) -> bool {
        self.exit == 0 && self.says.is_none()
    }

    fn saying(self, says: &'static str) -> Self {
        Self {
            says: Some(says),
            ..self
        }
    }
}

/// What is said, once, where the lease or the copy cannot be written after the submit.
pub(super) const LEASE_IS_BEHIND: &str = "the lease of this export could not be written";

pub(super) fn expected(case: &Case) -> Expected {
    let is_for_ever = case.is_for_ever();
    // The first that takes harm decides.
    let met = case.meets.iter().map(|operation| match operation.purpose {
        Purpose::Other => other(case, operation.name),
        _ => lease(operation, &case.effect, is_for_ever),
    });
    met.reduce(|first, next| match first.is_untroubled() {
        true => next,
        false => first,
    })
    .expect("a call that meets the effect")
}

fn other(case: &Case, name: &str) -> Expected {
    let is_for_ever = case.is_for_ever();
    match name {
        "ExportImages" => submit(&case.effect, is_for_ever),
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

/// A call about the leases.
fn lease(operation: &Operation, effect: &Effect, is_for_ever: bool) -> Expected {
    let harm = effects::harm(effect, operation);
    match operation.purpose {
        // A listing can only raise the number.
        Purpose::Other | Purpose::Listing => Expected::exit(0),
        Purpose::Row | Purpose::OwnLease | Purpose::NothingAbove => {
            reading(operation, effect, harm, is_for_ever)
        }
        Purpose::Create => create(effect, harm, is_for_ever),
        Purpose::Test => test(harm, is_for_ever),
        Purpose::LaterRead | Purpose::LaterCopy | Purpose::LaterPut => {
            later(operation, effect, harm, is_for_ever)
        }
    }
}

/// The row is read, for the first or the second time. Without it nothing is submitted.
fn reading(operation: &Operation, effect: &Effect, harm: Harm, is_for_ever: bool) -> Expected {
    let is_own = operation.purpose == Purpose::OwnLease;
    Expected::exit(match (effect, harm) {
        // A lease that cannot be understood. The fault that changes an object leaves it so.
        (Effect::ChangedObject, _) if is_own => 3,
        (_, Harm::NoAnswer) if is_own && is_unreadable(effect) => 3,
        (Effect::HugeBody { .. }, Harm::Nonsense) => 3,
        (_, Harm::Misleading(exit)) => exit,
        (_, Harm::Nothing) => 0,
        (_, Harm::NoAnswer | Harm::Throttled) if !is_for_ever => 0,
        (_, Harm::Throttled) => 5,
        (_, Harm::NoAnswer | Harm::Nonsense) => 1,
        (_, Harm::Denied | Harm::Credentials) => 4,
        // "No such bucket" is also "no such lease": where the own one never comes to light, the listing still shows it.
        (_, Harm::NotThere) if is_own && is_for_ever => 3,
        (_, Harm::NotThere) => 0,
        (_, Harm::Refused) if operation.purpose == Purpose::Row => 5,
        (_, Harm::Refused) => 1,
        // One call alone meets another clock: its second attempt, by that clock, is refused.
        (_, Harm::Clock) if is_for_ever => 0,
        (_, Harm::Clock) => 4,
    })
}

/// The lease is created: a refusal for the moment is retried, and in the end nothing is submitted.
fn create(effect: &Effect, harm: Harm, is_for_ever: bool) -> Expected {
    match harm {
        Harm::Denied => Expected::exit(0).saying("may not write a lease to the bucket"),
        // Another run has it; it is looked for from the start.
        _ if is_taken(effect) && is_for_ever => Expected::exit(5),
        _ if is_taken(effect) => Expected::exit(0),
        harm => write(harm, is_for_ever),
    }
}

/// The lease is created once more, which the bucket has to refuse.
fn test(harm: Harm, is_for_ever: bool) -> Expected {
    match harm {
        // Whether it honours the header is not known then.
        Harm::Denied => Expected::exit(0).saying("`x-cos-forbid-overwrite`"),
        harm => write(harm, is_for_ever),
    }
}

fn write(harm: Harm, is_for_ever: bool) -> Expected {
    Expected::exit(match harm {
        Harm::Nothing | Harm::Clock => 0,
        Harm::Credentials | Harm::Denied => 4,
        Harm::Misleading(exit) => exit,
        _ if !is_for_ever => 0,
        Harm::Throttled => 5,
        Harm::NoAnswer | Harm::Nonsense | Harm::Refused | Harm::NotThere => 1,
    })
}

/// The export runs, whatever becomes of its lease.
fn later(operation: &Operation, effect: &Effect, harm: Harm, is_for_ever: bool) -> Expected {
    let done = Expected::exit(0);
    let behind = done.saying(LEASE_IS_BEHIND);
    let is_copy = operation.purpose == Purpose::LaterCopy;
    match (operation.purpose, harm) {
        // What cannot be understood is no lease. A copy is written anew.
        (Purpose::LaterRead, Harm::NoAnswer) if is_unreadable(effect) => behind,
        (Purpose::LaterRead, Harm::Misleading(_)) => behind,
        (Purpose::LaterRead, _) if *effect == Effect::ChangedObject => behind,
        (_, Harm::NoAnswer) if is_copy && is_unreadable(effect) => done,
        // A lease that was deleted by hand is not created again.
        (Purpose::LaterRead | Purpose::LaterCopy, Harm::NotThere) => done,
        (_, Harm::Nothing | Harm::Misleading(_)) => done,
        // The reading before the next try shows that it was written.
        (Purpose::LaterPut, Harm::NoAnswer | Harm::Throttled | Harm::Nonsense)
            if is_processed(effect) =>
        {
            done
        }
        (_, Harm::NoAnswer | Harm::Throttled) if !is_for_ever => done,
        (Purpose::LaterPut, Harm::Nonsense | Harm::NotThere | Harm::Clock) if !is_for_ever => done,
        (Purpose::LaterPut, Harm::Refused) if !is_for_ever && !is_taken(effect) => done,
        (_, Harm::Clock) if is_for_ever => done,
        _ => behind,
    }
}

/// Whether the call was processed, in whatever way it was answered.
fn is_processed(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::ProcessedThenReset
            | Effect::StatusAfter { .. }
            | Effect::DelayBefore { .. }
            | Effect::DelayAfter { .. }
            | Effect::HugeBody { .. }
    )
}

/// Whether the answer is whole, and its body is no document.
fn is_unreadable(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Garbage
            | Effect::EmptyBody
            | Effect::ShortBodyAgreeing { .. }
            | Effect::FlippedByte { .. }
    )
}

fn is_taken(effect: &Effect) -> bool {
    matches!(effect, Effect::CosError { code, .. } if code == "FileAlreadyExists")
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
            // Proves nothing, and neither does a code that nobody knows.
            "InternalError" | "ResourceUnavailable" | "Moon.Full" => unknown(),
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
        // The own lease, at the second reading, which is no lease then.
        Effect::ChangedObject => Expected::exit(3),
        _ => look_up("GetService", effects::harm(effect, &ANY), true),
    }
}

/// A failed check weighs more than one whose answer is unknown.
fn is_about_roles(effect: &Effect) -> bool {
    matches!(effect, Effect::ApiError { code } if code.contains("Role"))
}
