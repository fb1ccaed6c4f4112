//! `authorize`: lets CVM write exports, or takes that back; shows what would change, asks, does it,
//! and waits until it is seen.

use std::time::Duration;

use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{
    Access, AccessPlan, Authorizer, Destination, Effect, Existing, ExportRequest, Fact, Grant,
    Intent, Known, Left, OwnPolicy, PlannedStep, WritingPreset, check_role, look_around,
};
use cvm_export::model::{BucketName, Prefix, RoleName, Verdict, printable_json};
use serde::Serialize;

use super::consent::Consent;
use super::exit::Exit;
use super::settings::{JournalUse, Session};
use super::{Context, Names, values};

/// How long `image --authorize` waits; changes of CAM are usually seen within seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The bucket that may be written to, by a policy of its own; without it and --preset, what exists is
    /// shown
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
    #[arg(long, value_name = "NAME", conflicts_with = "bucket")]
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
    existing: &'a Existing,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_policies: Option<&'a [OwnPolicy]>,
    steps: &'a [PlannedStep],
    left: Vec<Left>,
    state: State,
}

impl<'a> Report<'a> {
    fn new(
        access: &'a Access,
        intent: Intent,
        existing: &'a Existing,
        plan: &'a AccessPlan,
        state: State,
        context: &Context<'_>,
    ) -> Self {
        let (bucket, prefix, preset) = match &access.grant {
            Grant::Bucket { bucket, prefix, .. } => (Some(bucket), prefix.as_ref(), None),
            Grant::Preset(preset) => (None, None, Some(*preset)),
        };
        Self {
            bucket,
            prefix,
            preset,
            ..Self::about(intent, existing, plan, state, context)
        }
    }

    fn about(
        intent: Intent,
        existing: &'a Existing,
        plan: &'a AccessPlan,
        state: State,
        context: &Context<'_>,
    ) -> Self {
        let left = plan.left.iter().map(|left| Left {
            what: left.what.clone(),
            why: context.printer.advice(&left.why),
        });
        Self {
            schema: "cvm-export.authorize.v1",
            intent: match intent {
                Intent::Authorize => "authorize",
                Intent::Revoke => "revoke",
            },
            role: &plan.role,
            bucket: None,
            prefix: None,
            preset: None,
            existing,
            own_policies: None,
            steps: &plan.steps,
            left: left.collect(),
            state,
        }
    }
}

/// What the command line is about.
enum Wish {
    Bucket(BucketName),
    Preset(WritingPreset),
}

impl Args {
    fn wish(&self) -> Option<Wish> {
        let preset = self.preset.map(Wish::Preset);
        preset.or_else(|| self.bucket.clone().map(Wish::Bucket))
    }

    fn intent(&self) -> Intent {
        match self.revoke {
            true => Intent::Revoke,
            false => Intent::Authorize,
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let Some(wish) = args.wish() else {
        return look(&args, context).await;
    };
    let intent = args.intent();
    let names = Names {
        bucket: args.bucket.as_ref(),
        ..Names::default()
    };
    let (access, existing, plan, result) = context
        .with_session(names, JournalUse::IfThere, async |session| {
            let access = args.access(wish, context, &session).await?;
            let cancel = context.signals.cancel();
            let authorizer = Authorizer::new(session.cloud.clone(), access, intent, cancel)?;
            let (existing, mut plan) = authorizer.survey().await?;
            let consent = if args.dry_run {
                Consent::Print
            } else {
                Consent::asked_for(context.global.yes)
            };
            let settling = settle(
                context,
                &authorizer,
                &existing,
                &mut plan,
                consent,
                args.timeout,
            );
            let result = settling.await;
            // The authorizer itself must end here: its client speaks on the events' channel, whose end is
            // waited for.
            Ok((authorizer.access().clone(), existing, plan, result))
        })
        .await?;
    let done: Vec<String> = plan
        .steps
        .iter()
        .filter(|planned| planned.done)
        .map(|planned| planned.step.to_string())
        .collect();
    let report = |state| {
        let report = Report::new(&access, intent, &existing, &plan, state, context);
        context.printer.json(&report);
    };
    match result {
        Ok(state) => {
            report(state);
            Ok(match state {
                State::NotSeenYet => Exit::StillRunning,
                _ => Exit::Done,
            })
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            report(match done.is_empty() {
                true => State::Planned,
                false => State::Incomplete,
            });
            Err(error)
        }
        // There is no object then, so that the error must say what stands.
        Err(error) if !done.is_empty() => {
            let hint = error
                .hint()
                .map_or_else(String::new, |hint| format!("{hint}; "));
            let hint = format!("{hint}done before: {}", done.join(", "));
            Err(error.with_hint(hint))
        }
        Err(error) => Err(error),
    }
}

/// Shows what exists where nothing is named, and how to go on; changes nothing.
async fn look(args: &Args, context: &Context<'_>) -> Result<Exit, Error> {
    let role = &args.role_name;
    let (existing, own) = context
        .with_session(Names::default(), JournalUse::IfThere, async |session| {
            let looking = look_around(&session.cloud, session.region.said(), role);
            context.until_signalled(looking).await
        })
        .await?;
    let printer = context.printer;
    for line in existing.lines(role) {
        printer.data(&line);
    }
    for policy in &own {
        let carriers = match policy.carriers {
            Some(0) => "nobody carries it".to_owned(),
            Some(count) => format!("{} it", plural_carriers(count)),
            None => "who carries it is not known".to_owned(),
        };
        let way = policy
            .revocation
            .as_ref()
            .map_or_else(String::new, |command| {
                format!(
                    "; {} takes it back",
                    printer.advice(&format!("`{command}`"))
                )
            });
        printer.data(&format!(
            "cvm-export made policy `{}`: {carriers}{way}",
            policy.name
        ));
    }
    if own.is_empty() {
        printer.data("cvm-export made no policy");
    }
    printer.note("nothing was changed");
    printer.note(&printer.advice(match args.intent() {
        Intent::Authorize => {
            "`cvm-export authorize --bucket NAME` lets CVM write to one bucket; \
             `cvm-export authorize --preset QcloudCOSDataWriteOnly` to every bucket of the account"
        }
        Intent::Revoke => {
            "`cvm-export authorize --revoke --bucket NAME` takes back what was made for that bucket, \
             `cvm-export authorize --revoke --preset NAME` a preset policy; a role of its own goes with the last"
        }
    }));
    let none = AccessPlan::empty(role);
    printer.json(&Report {
        own_policies: Some(&own),
        ..Report::about(args.intent(), &existing, &none, State::Unchanged, context)
    });
    Ok(Exit::Done)
}

fn plural_carriers(count: u64) -> String {
    match count {
        1 => "1 user, group or role carries".to_owned(),
        count => format!("{count} users, groups or roles carry"),
    }
}

impl Args {
    async fn access(
        &self,
        wish: Wish,
        context: &Context<'_>,
        session: &Session,
    ) -> Result<Access, Error> {
        let (grant, region) = match wish {
            Wish::Preset(preset) => (Grant::Preset(preset), session.region.said().cloned()),
            Wish::Bucket(bucket) => {
                let destination = self.destination(bucket, context, session).await?;
                if !self.revoke {
                    warn_of_no_bucket(context, &destination);
                }
                let region = destination.bucket_region().clone();
                let grant = Grant::Bucket {
                    bucket: destination.bucket,
                    region: region.clone(),
                    prefix: self.prefix.clone(),
                };
                (grant, Some(region))
            }
        };
        Ok(Access {
            role: self.role_name.clone(),
            grant,
            region,
        })
    }

    /// The bucket and its region. What was made for a bucket is taken back also when that is gone: its
    /// policy is found by name.
    async fn destination(
        &self,
        bucket: BucketName,
        context: &Context<'_>,
        session: &Session,
    ) -> Result<Destination, Error> {
        let found = super::resolve(context, session, &bucket).await;
        let is_nowhere =
            |error: &Error| matches!(error.kind(), ErrorKind::Precondition | ErrorKind::Usage);
        match found {
            Err(error) if self.revoke && bucket.app_id().is_some() && is_nowhere(&error) => {
                Ok(Destination {
                    bucket,
                    region: session.cloud.endpoints().any_region(),
                    buckets: Fact::NotAsked,
                })
            }
            found => found,
        }
    }
}

/// Warns where the policy would be for a bucket that is not there: it may be made later, or be a slip of the
/// pen.
fn warn_of_no_bucket(context: &Context<'_>, destination: &Destination) {
    if matches!(destination.buckets, Fact::Known(_)) && destination.listed().is_none() {
        let (bucket, region) = (&destination.bucket, &destination.region);
        context.printer.warning(&format!(
            "the account lists no bucket `{bucket}`; the policy is for one of that name in {region}"
        ));
    }
}

/// Makes the role for `image --authorize`, when and only when its check fails for one of `requests`, which
/// share bucket and role, and nothing else refuses that one. Whether it is enough is for the checks of the
/// export to say.
pub(super) async fn where_needed(
    context: &Context<'_>,
    session: &Session,
    destination: &Destination,
    requests: impl Iterator<Item = &(ExportRequest, Known)>,
    is_refused_anyway: impl AsyncFn(&(ExportRequest, Known)) -> Result<bool, Error>,
    consent: Consent,
) -> Result<(), Error> {
    for asked in requests {
        let request = ExportRequest {
            // That of the image may be another one, and a copy is exported then.
            region: destination.bucket_region().clone(),
            ..asked.0.clone()
        };
        let checking = check_role(&session.cloud, &request);
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
            region: Some(request.region.clone()),
        };
        let cancel = context.signals.cancel();
        let authorizer = Authorizer::new(session.cloud.clone(), access, Intent::Authorize, cancel)?;
        let (existing, mut plan) = authorizer.survey().await?;
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
        settle(
            context,
            &authorizer,
            &existing,
            &mut plan,
            consent,
            PATIENCE,
        )
        .await?;
        break;
    }
    Ok(())
}

/// Shows what exists and `plan`, asks where that is due, carries it out, and waits until it is seen.
async fn settle(
    context: &Context<'_>,
    authorizer: &Authorizer,
    existing: &Existing,
    plan: &mut AccessPlan,
    consent: Consent,
    patience: Duration,
) -> Result<State, Error> {
    let printer = context.printer;
    for line in existing.lines(&authorizer.access().role) {
        match consent {
            // Nothing of it changes.
            Consent::Given => printer.note(&line),
            consent => context.show(consent, &line),
        }
    }
    show(context, plan, consent);
    if plan.steps.is_empty() {
        printer.note(&format!("nothing to change: {}", goal(authorizer, plan)));
        return Ok(State::Unchanged);
    }
    if !context.agree(consent).await? {
        return Ok(State::Planned);
    }
    let mut carried_out = authorizer.carry_out(plan).await;
    if let (Err(error), Consent::Given) = (&carried_out, consent)
        && error.kind() == ErrorKind::Precondition
    {
        // Another run of this command may be at it; whatever there is to do was agreed to beforehand.
        let mut anew = authorizer.plan().await?;
        let done: Vec<PlannedStep> = plan
            .steps
            .drain(..)
            .filter(|planned| planned.done)
            .collect();
        if !anew.replaces_a_policy() {
            printer.note("somebody else has changed something meanwhile; what is left now:");
            show(context, &anew, consent);
            carried_out = authorizer.carry_out(&mut anew).await;
        }
        *plan = anew;
        plan.steps.splice(0..0, done);
    }
    for planned in plan.steps.iter().filter(|planned| planned.done) {
        printer.note(&format!("done: {}", planned.step));
    }
    carried_out?;
    Ok(match authorizer.await_effect(patience).await? {
        Effect::Seen => {
            printer.note(&goal(authorizer, plan));
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
        Intent::Revoke if plan.still.is_empty() => {
            format!("nothing that is known to be made by cvm-export lets role `{role}` {grant}")
        }
        Intent::Revoke => format!(
            "role `{role}` may still write there, by {}, as what stays says",
            plan.still.join(", ")
        ),
    }
}

/// Writes the changes and what stays as text.
fn show(context: &Context<'_>, plan: &AccessPlan, consent: Consent) {
    let line = |line: &str| context.show(consent, line);
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
        let why = context.printer.advice(&left.why);
        line(&format!("stays: {}, because {why}", left.what));
    }
}
