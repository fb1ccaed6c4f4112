//! `authorize`: lets CVM write exports, or takes that back; shows what would change, asks, does it,
//! and waits until it is seen.

use std::time::Duration;

use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{
    Access, AccessPlan, Authorizer, Effect, ExportRequest, Grant, Intent, Known, Left, PlannedStep,
    WritingPreset, check_role,
};
use cvm_export::model::{BucketName, Prefix, RoleName, Verdict, printable_json};
use serde::Serialize;

use super::consent::{CHANGES, Consent};
use super::exit::Exit;
use super::settings::{JournalUse, Session};
use super::{Context, Names, values};

/// How long `image --authorize` waits; changes of CAM are usually seen within seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The bucket that may be written to, by a policy of its own
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// Allow names that start like this, and no others; replaces what an earlier run allowed
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "bucket",
        conflicts_with_all = ["preset", "revoke"]
    )]
    prefix: Option<Prefix>,

    /// Attach this preset policy instead, which allows writing to every bucket:
    /// QcloudCOSDataWriteOnly, QcloudCOSDataFullControl or QcloudCOSFullAccess
    #[arg(long, value_name = "NAME")]
    preset: Option<WritingPreset>,

    /// The CAM role that CVM takes on to write to the bucket
    #[arg(
        long,
        alias = "RoleName",
        value_name = "ROLE",
        default_value = "CVM_QcsRole"
    )]
    role_name: RoleName,

    /// Take back what an earlier run made, and nothing else
    #[arg(long)]
    revoke: bool,

    /// Print what would change, with its documents, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Agree to the changes beforehand
    #[arg(long)]
    yes: bool,

    /// How long to wait until the changes are seen
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "60s")]
    timeout: Duration,
}

/// What became of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// There was nothing to change.
    Unchanged,
    /// They were shown only, or nobody agreed.
    Planned,
    /// They are made and seen.
    Done,
    /// They are made and not seen yet.
    NotSeenYet,
    /// Some are made, then something went wrong.
    Incomplete,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    intent: &'static str,
    role: &'a RoleName,
    bucket: Option<&'a BucketName>,
    prefix: Option<&'a Prefix>,
    preset: Option<WritingPreset>,
    steps: &'a [PlannedStep],
    left: &'a [Left],
    state: State,
}

impl<'a> Report<'a> {
    fn new(access: &'a Access, intent: Intent, plan: &'a AccessPlan, state: State) -> Self {
        let (bucket, prefix, preset) = match &access.grant {
            Grant::Bucket { bucket, prefix, .. } => (Some(bucket), prefix.as_ref(), None),
            Grant::Preset(preset) => (None, None, Some(*preset)),
        };
        Self {
            schema: "cvm-export.authorize.v1",
            intent: match intent {
                Intent::Authorize => "authorize",
                Intent::Revoke => "revoke",
            },
            role: &plan.role,
            bucket,
            prefix,
            preset,
            steps: &plan.steps,
            left: &plan.left,
            state,
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    if args.bucket.is_none() && args.preset.is_none() {
        return Err(Error::new(
            ErrorKind::Usage,
            "neither --bucket nor --preset says what the role may write to",
        )
        .with_hint(match args.revoke {
            false => {
                "`cvm-export authorize --bucket NAME` is about one bucket; \
                 `--preset QcloudCOSDataWriteOnly` is about every bucket of the account"
            }
            true => {
                "`cvm-export authorize --revoke --bucket NAME` takes back what was made for that bucket, \
                 `--revoke --preset NAME` a preset policy"
            }
        }));
    }
    let intent = if args.revoke {
        Intent::Revoke
    } else {
        Intent::Authorize
    };
    let names = Names {
        bucket: args.bucket.as_ref(),
        ..Names::default()
    };
    let (access, plan, result) = context
        .with_session(names, JournalUse::IfThere, async |session| {
            let grant = match (args.preset, &args.bucket) {
                (None, Some(bucket)) => {
                    let destination = super::resolve(context, &session, bucket).await?;
                    Grant::Bucket {
                        bucket: destination.bucket,
                        region: destination.region,
                        prefix: args.prefix.clone(),
                    }
                }
                (preset, _) => Grant::Preset(preset.unwrap_or(WritingPreset::DataWriteOnly)),
            };
            let access = Access {
                role: args.role_name.clone(),
                grant,
            };
            let cancel = context.signals.cancel();
            let authorizer = Authorizer::new(session.cloud.clone(), access, intent, cancel)?;
            let mut plan = authorizer.plan().await?;
            let consent = if args.dry_run {
                Consent::Print
            } else {
                Consent::asked_for(args.yes)
            };
            let result = settle(context, &authorizer, &mut plan, consent, args.timeout).await;
            // The authorizer itself must end here: its client speaks on the events' channel, whose end is
            // waited for.
            Ok((authorizer.access().clone(), plan, result))
        })
        .await?;
    let state = match &result {
        Ok(state) => *state,
        Err(_) if plan.steps.iter().any(|planned| planned.done) => State::Incomplete,
        Err(_) => State::Planned,
    };
    context
        .printer
        .json(&Report::new(&access, intent, &plan, state));
    match result? {
        State::NotSeenYet => Ok(Exit::StillRunning),
        _ => Ok(Exit::Done),
    }
}

/// Makes the role for `image --authorize`, when and only when its check fails for one of `requests`, which
/// share bucket and role, and nothing else refuses that one. Whether it is enough is for the checks of the export to say.
pub(super) async fn where_needed(
    context: &Context<'_>,
    session: &Session,
    requests: impl Iterator<Item = &(ExportRequest, Known)>,
    is_refused_anyway: impl AsyncFn(&(ExportRequest, Known)) -> Result<bool, Error>,
    consent: Consent,
) -> Result<(), Error> {
    for asked in requests {
        let (request, _) = asked;
        let checking = check_role(&session.cloud, request);
        if context.until_signalled(checking).await?.verdict != Verdict::Fail {
            continue;
        }
        if is_refused_anyway(asked).await? {
            context.printer.note(&format!(
                "the export of image `{}` is refused anyway, so no role is made for it",
                request.asked_image()
            ));
            continue;
        }
        let access = Access {
            role: request.role.clone(),
            grant: Grant::Bucket {
                bucket: request.bucket.clone(),
                region: request.region.clone(),
                // A policy for one prefix would take the right of exports under others away.
                prefix: None,
            },
        };
        let cancel = context.signals.cancel();
        let authorizer = Authorizer::new(session.cloud.clone(), access, Intent::Authorize, cancel)?;
        let mut plan = authorizer.plan().await?;
        if plan.replaces_a_policy() {
            return Err(Error::new(
                ErrorKind::Precondition,
                "the policy of an earlier `cvm-export authorize` does not allow this export, and \
                 `--authorize` replaces none; nothing was submitted",
            )
            .with_hint(format!(
                "`{}` shows what would change",
                authorizer.command()
            )));
        }
        settle(context, &authorizer, &mut plan, consent, PATIENCE).await?;
        break;
    }
    Ok(())
}

/// Shows `plan`, asks where that is due, carries it out, and waits until it is seen.
async fn settle(
    context: &Context<'_>,
    authorizer: &Authorizer,
    plan: &mut AccessPlan,
    consent: Consent,
    patience: Duration,
) -> Result<State, Error> {
    let printer = context.printer;
    let goal = goal(authorizer, plan);
    // What is agreed to must have been seen, however quiet the run.
    match consent {
        Consent::Print => show(plan, |line| printer.data(line)),
        // What others will be able to do must not be missed, whoever agreed to it.
        Consent::Ask | Consent::Given => show(plan, |line| printer.stderr(line)),
        Consent::ShowOnly => show(plan, |line| printer.note(line)),
    }
    if plan.steps.is_empty() {
        printer.note(&format!("nothing to change: {goal}"));
        return Ok(State::Unchanged);
    }
    match consent {
        Consent::Print | Consent::ShowOnly => {
            printer.note("nothing was changed");
            return Ok(State::Planned);
        }
        Consent::Ask => context.ask(&CHANGES).await?,
        Consent::Given => {}
    }
    let carried_out = authorizer.carry_out(plan).await;
    for planned in plan.steps.iter().filter(|planned| planned.done) {
        printer.note(&format!("done: {}", planned.step));
    }
    carried_out?;
    Ok(match authorizer.await_effect(patience).await? {
        Effect::Seen => {
            printer.note(&goal);
            State::Done
        }
        Effect::NotYet => {
            let command = printer.advice(&format!("`{}`", authorizer.command()));
            printer.stderr(&format!(
                "everything is done, but the cloud does not show it yet; {command} run again waits on and changes nothing"
            ));
            State::NotSeenYet
        }
    })
}

/// What holds once nothing is left to be done.
fn goal(authorizer: &Authorizer, plan: &AccessPlan) -> String {
    let (role, grant) = (&plan.role, &authorizer.access().grant);
    match authorizer.intent() {
        Intent::Authorize => format!("role `{role}` trusts CVM and may {grant}"),
        Intent::Revoke => format!("nothing that cvm-export made lets role `{role}` {grant}"),
    }
}

/// Writes the changes and what stays as text.
fn show(plan: &AccessPlan, line: impl Fn(&str)) {
    for planned in &plan.steps {
        line(&format!("will {}", planned.step));
        for (word, document) in planned.step.documents() {
            let text = serde_json::to_string_pretty(document).unwrap_or_default();
            // Whoever wrote it must not decide what the person sees.
            let text = printable_json(&text);
            line(&format!("  {word}: {}", text.replace('\n', "\n  ")));
        }
    }
    for left in &plan.left {
        line(&format!("stays: {}, because {}", left.what, left.why));
    }
}
