//! `files rm`: deletes exports by id, age and number, and uploads that dead exports left.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{Cost, PriceTable, StoredObject};
use cvm_export::export::{
    AbortPlan, DoomedExport, DoomedObject, DoomedUpload, Files, GroupPlan, Part, Removal,
    RemovalState, Retention, Scope, Selection, Stay,
};
use cvm_export::model::{BucketName, ExportId, Region};
use serde::Serialize;

use super::{
    Context, Exit, GroupingArgs, JournalUse, Names, PriceArgs, Question, ScopeArgs, Session, open,
    plural, size, tables, total, values, word,
};

const QUESTION: Question = Question {
    text: "delete all of this?",
    unchanged: "nothing was deleted",
};

/// Shorter than this and a slow exporter would be taken for a dead one.
const SHORTEST_IDLE: Duration = Duration::from_secs(3600);

#[derive(clap::Args, Debug)]
// A listing may go through all the buckets that the journal knows; a deletion is about a single one.
#[command(mut_arg("bucket", |arg| arg.help(
    "The bucket, in full or without its AppId [default: with --export-id, by this machine's journal]"
)))]
pub(super) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,

    /// These exports, whatever their age; repeat the flag or separate by commas for several
    #[arg(
        long = "export-id",
        value_name = "EXPORT_ID",
        value_delimiter = ',',
        conflicts_with_all = ["older_than", "keep_last", "abort_uploads"]
    )]
    export_ids: Vec<ExportId>,

    /// Exports that were complete so long ago, such as 30d; with --abort-uploads, uploads that have not
    /// grown for so long [default there: 48h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    older_than: Option<Duration>,

    /// Exports that are not among the newest N complete ones of their group
    #[arg(long, value_name = "N", conflicts_with = "abort_uploads", value_parser = values::exports)]
    keep_last: Option<NonZeroUsize>,

    #[command(flatten)]
    grouping: GroupingArgs,

    /// With --older-than: delete also the newest complete export of a group
    #[arg(long, conflicts_with_all = ["export_ids", "abort_uploads"])]
    include_newest: bool,

    /// Abort unfinished uploads of dead exports, which no list of objects shows and which are billed
    #[arg(long)]
    abort_uploads: bool,

    /// Print what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    prices: PriceArgs,

    /// Take over from a removal that has died, 30 minutes after it was last heard of
    #[arg(long, conflicts_with = "abort_uploads")]
    resubmit: bool,
}

/// What became of it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// There was nothing to delete.
    Unchanged,
    /// It was shown only.
    Planned,
    /// All of it is deleted.
    Done,
    /// Some of it is not.
    Incomplete,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    bucket: &'a BucketName,
    region: &'a Region,
    versioning: Option<&'static str>,
    all_versions: bool,
    state: State,
    freed_bytes: u64,
    rule: Option<&'a Retention>,
    groups: &'a [GroupPlan],
    exports: &'a [DoomedExport],
    stays: &'a [Stay],
}

#[derive(Serialize)]
struct UploadsReport<'a> {
    schema: &'static str,
    bucket: &'a BucketName,
    region: &'a Region,
    state: State,
    freed_bytes: u64,
    uploads: &'a [DoomedUpload],
    stays: &'a [Stay],
}

/// What is done with a plan that was shown.
enum Step {
    Leave(State),
    Do,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    args.check()?;
    let prices = args.prices.table(context.printer)?;
    let names = Names {
        bucket: args.scope.bucket.as_ref(),
        ..Names::default()
    };
    let journal_use = JournalUse::IfThere;
    if args.abort_uploads {
        let (plan, result) = context
            .with_session(names, journal_use, async |session| {
                let scope = args.only_scope(context, &session).await?;
                let files = open(context, &session);
                let idle_for = args.older_than.unwrap_or(Files::USUAL_IDLE);
                let planning = async {
                    let inventory = files.list(scope).await?;
                    files.dead_uploads(inventory, idle_for).await
                };
                let mut plan = context.until_signalled(planning).await?;
                args.show_uploads(&plan, context);
                let mut uploads = plan.uploads.iter();
                let is_nothing = uploads.all(|it| it.state != RemovalState::Planned);
                let result = match args.agree(is_nothing, context).await? {
                    Step::Leave(state) => Ok(state),
                    Step::Do => files.abort(&mut plan).await.map(|()| State::Done),
                };
                Ok((plan, result))
            })
            .await?;
        return conclude_uploads(&plan, result, context);
    }
    let selection = args.selection()?;
    let (removal, result) = context
        .with_session(names, journal_use, async |session| {
            let scope = args.only_scope(context, &session).await?;
            let files = open(context, &session);
            let inventory = context.until_signalled(files.list(scope)).await?;
            let selecting = files.select(inventory, &selection);
            let mut removal = context.until_signalled(selecting).await?;
            args.show(&removal, &prices, context);
            if !args.dry_run {
                files.note_vanished(&removal).await;
            }
            let result = match args.agree(removal.exports.is_empty(), context).await? {
                Step::Leave(state) => Ok(state),
                Step::Do => files
                    .delete(&mut removal, args.resubmit)
                    .await
                    .map(|()| State::Done),
            };
            Ok((removal, result))
        })
        .await?;
    conclude(&removal, result, context)
}

impl Args {
    fn check(&self) -> Result<(), Error> {
        let usage = |message: &str| Err(Error::new(ErrorKind::Usage, message));
        let is_by_rule = self.older_than.is_some() || self.keep_last.is_some();
        if self.grouping.group_by.is_some() && (self.abort_uploads || !is_by_rule) {
            return usage("--group-by: it needs --keep-last or --older-than");
        }
        if self.abort_uploads && self.scope.all_versions {
            return usage("--all-versions: uploads have no versions");
        }
        if self.abort_uploads && self.older_than.is_some_and(|idle| idle < SHORTEST_IDLE) {
            return usage(
                "--older-than: with --abort-uploads the least is 1h, as an upload may rest for an hour while its \
                 export runs",
            );
        }
        Ok(())
    }

    fn selection(&self) -> Result<Selection, Error> {
        Selection::named(self.export_ids.clone())
            .or_else(|| {
                Selection::retained(Retention {
                    group_by: self.grouping.group_by(),
                    keep_last: self.keep_last,
                    older_than: self.older_than,
                    include_newest: self.include_newest,
                })
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Usage,
                    "nothing selected: use --export-id, --older-than, --keep-last or --abort-uploads",
                )
                .with_hint("`cvm-export files` lists what is there")
            })
    }

    /// The one bucket that is meant: the named one, or that of the exports in this machine's journal.
    async fn only_scope(&self, context: &Context<'_>, session: &Session) -> Result<Scope, Error> {
        if self.scope.bucket.is_some() {
            let mut scopes = self.scope.scopes(context, session).await?;
            return Ok(scopes.remove(0));
        }
        let mut places = BTreeSet::new();
        for export_id in &self.export_ids {
            let record = session.journal.load(export_id)?;
            places.extend(record.map(|record| (record.bucket, record.region)));
        }
        let mut places = places.into_iter();
        match (places.next(), places.next()) {
            (Some((bucket, region)), None) => Ok(self.scope.within(bucket, region)),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::Usage,
                "--export-id: these exports lie in different buckets; name those of one at a time",
            )),
            (None, _) => Err(Error::new(ErrorKind::Usage, "--bucket: no bucket is named")
                .with_hint("name the bucket that is to be cleaned up with `--bucket NAME`")),
        }
    }

    /// Writes the plan: to stdout where it is the result, to stderr where it is asked about.
    fn lines(&self, context: &Context<'_>, lines: impl Iterator<Item = String>) {
        for line in lines {
            if self.dry_run {
                context.printer.data(&line);
            } else if context.global.yes {
                context.printer.note(&line);
            } else {
                // What is agreed to must have been seen, however quiet the run.
                context.printer.stderr(&line);
            }
        }
    }

    fn show(&self, removal: &Removal, prices: &PriceTable, context: &Context<'_>) {
        let verb = if removal.only_hides() {
            "hide"
        } else {
            "delete"
        };
        let bucket = &removal.scope.bucket;
        if let Some(rule) = &removal.rule {
            let head = std::iter::once(format!("rule: {rule}"));
            let groups = removal.groups.iter().map(|plan| {
                format!(
                    "group {}: {} go, {} stay",
                    plan.group, plan.goes, plan.stays
                )
            });
            self.lines(context, head.chain(groups));
        }
        for export in &removal.exports {
            let files = export
                .objects
                .iter()
                .filter(|object| object.part == Part::File);
            let bytes = total(files.clone().map(|object| object.size_bytes));
            let age = export.age_seconds.map_or_else(String::new, |seconds| {
                format!(", {} old", tables::age(seconds))
            });
            let head = format!(
                "will {verb} {}: {}, {}{age}; {}",
                export.title(),
                plural(files.count(), "file"),
                size(bytes),
                export.why
            );
            let objects = export.objects.iter().map(|object| {
                let version = object.version_id.as_ref();
                let version = version.map_or_else(String::new, |id| format!(" version {id}"));
                let part = match object.part {
                    Part::File => size(object.size_bytes),
                    Part::Record => "record".to_owned(),
                    Part::Marker => "delete marker".to_owned(),
                };
                format!("  cos://{bucket}/{}{version} ({part})", object.key)
            });
            self.lines(context, std::iter::once(head).chain(objects));
        }
        self.show_stays(&removal.stays, context);
        if removal.exports.is_empty() {
            return;
        }
        self.lines(context, std::iter::once(sum(removal, prices)));
        if removal.only_hides() {
            context.printer.warning(
                "the bucket keeps versions: a delete only hides the files, and they go on costing; \
                 `--all-versions` deletes them for good",
            );
        }
        if removal.hides_some() {
            context.printer.warning(
                "the bucket has stopped to keep versions: what is from the time when it did is only hidden, and \
                 goes on costing; the rest is deleted for good. `--all-versions` deletes all of it",
            );
        }
        if removal.versioning.is_none() {
            context.printer.warning(
                "whether the bucket keeps versions could not be seen; if it does, this frees nothing \
                 (allow `name/cos:GetBucketVersioning`)",
            );
        }
    }

    fn show_uploads(&self, plan: &AbortPlan, context: &Context<'_>) {
        let lines = plan.uploads.iter().map(|doomed| {
            if doomed.state == RemovalState::Failed {
                return format!(
                    "keep the upload of `{}`: its parts could not be listed",
                    doomed.upload.key
                );
            }
            let since = doomed.idle_since.map_or_else(String::new, |time| {
                format!(", idle since {}", time.format("%Y-%m-%d %H:%M:%SZ"))
            });
            format!(
                "will abort the upload of cos://{}/{}: {}, {}{since}",
                plan.scope.bucket,
                doomed.upload.key,
                plural(doomed.parts, "part"),
                size(doomed.size_bytes)
            )
        });
        self.lines(context, lines);
        self.show_stays(&plan.stays, context);
    }

    fn show_stays(&self, stays: &[Stay], context: &Context<'_>) {
        let lines = stays.iter();
        let lines = lines.map(|stay| format!("keep {}: {}", stay.what, stay.why));
        self.lines(context, lines);
    }

    /// Whether what was shown is to be done.
    async fn agree(&self, is_nothing: bool, context: &Context<'_>) -> Result<Step, Error> {
        if is_nothing {
            context.printer.note("nothing to delete");
            return Ok(Step::Leave(State::Unchanged));
        }
        if self.dry_run {
            context.printer.note(QUESTION.unchanged);
            return Ok(Step::Leave(State::Planned));
        }
        if !context.global.yes {
            context.ask(&QUESTION).await?;
        }
        Ok(Step::Do)
    }
}

/// What goes altogether, and what that saves.
fn sum(removal: &Removal, prices: &PriceTable) -> String {
    let objects = removal.objects();
    let files: Vec<&DoomedObject> = objects.filter(|object| object.part == Part::File).collect();
    let costs = files.iter().map(|file| {
        let class = file.storage_class.as_ref();
        let class = class.map_or("STANDARD", |class| class.as_str());
        let stored = StoredObject::seen(class, file.size_bytes);
        stored.cost_per_month(&removal.scope.region, prices)
    });
    let month = tables::range(&Cost::sum(costs), &prices.currency().to_string());
    let saves = match (removal.only_hides(), removal.versioning) {
        (true, _) => "saves nothing, as the bucket keeps versions".to_owned(),
        (false, None) => format!("saves {month} a month, or nothing if the bucket keeps versions"),
        (false, Some(_)) => format!("saves {month} a month"),
    };
    format!(
        "{}, {}, {}; {saves}; {}",
        plural(removal.exports.len(), "export"),
        plural(files.len(), "file"),
        size(total(files.iter().map(|file| file.size_bytes))),
        prices.provenance()
    )
}

fn conclude(
    removal: &Removal,
    result: Result<State, Error>,
    context: &Context<'_>,
) -> Result<Exit, Error> {
    let printer = context.printer;
    let bucket = &removal.scope.bucket;
    let is_begun = removal
        .objects()
        .any(|it| matches!(it.state, RemovalState::Deleted | RemovalState::Hidden));
    let result = reported(result, is_begun)?;
    let left = removal.objects().filter(|object| {
        matches!(
            object.state,
            RemovalState::Planned | RemovalState::Changed | RemovalState::Failed
        )
    });
    let left = left.count();
    let state = match &result {
        Ok(State::Done) if left > 0 => State::Incomplete,
        Ok(state) => *state,
        Err(_) => State::Incomplete,
    };
    let of_state = |wanted: RemovalState| removal.objects().filter(move |it| it.state == wanted);
    let freed_bytes = total(of_state(RemovalState::Deleted).map(|it| it.size_bytes));
    let hidden_bytes = total(of_state(RemovalState::Hidden).map(|it| it.size_bytes));
    if matches!(state, State::Done | State::Incomplete) {
        for object in removal.objects() {
            let address = format!("cos://{bucket}/{}", object.key);
            match object.state {
                RemovalState::Deleted | RemovalState::Hidden if object.part == Part::File => {
                    printer.data(&address);
                }
                RemovalState::Changed => printer.warning(&format!(
                    "{address} stays: another object stands there since it was listed"
                )),
                RemovalState::Failed => printer.warning(&format!(
                    "{address} is not deleted: {}",
                    object.error.as_deref().unwrap_or_default()
                )),
                _ => {}
            }
        }
        printer.note(&format!(
            "{} deleted, {} freed",
            plural(of_state(RemovalState::Deleted).count(), "object"),
            size(freed_bytes)
        ));
        if hidden_bytes > 0 {
            printer.warning(&format!(
                "{} are hidden and not deleted, as the bucket keeps versions: they go on costing",
                size(hidden_bytes)
            ));
        }
    }
    printer.json(&Report {
        schema: "cvm-export.removal.v1",
        bucket,
        region: &removal.scope.region,
        versioning: removal.versioning.map(word),
        all_versions: removal.scope.all_versions,
        state,
        freed_bytes,
        rule: removal.rule.as_ref(),
        groups: &removal.groups,
        exports: &removal.exports,
        stays: &removal.stays,
    });
    end(result, state, context)
}

fn conclude_uploads(
    plan: &AbortPlan,
    result: Result<State, Error>,
    context: &Context<'_>,
) -> Result<Exit, Error> {
    let printer = context.printer;
    let uploads = &plan.uploads;
    let is_begun = uploads.iter().any(|it| it.state == RemovalState::Deleted);
    let result = reported(result, is_begun)?;
    let is_over = |state| matches!(state, RemovalState::Deleted | RemovalState::Gone);
    let state = match &result {
        Ok(State::Done | State::Unchanged) if !uploads.iter().all(|it| is_over(it.state)) => {
            State::Incomplete
        }
        Ok(state) => *state,
        Err(_) => State::Incomplete,
    };
    let given_up = uploads
        .iter()
        .filter(|it| it.state == RemovalState::Deleted);
    let freed_bytes = total(given_up.clone().map(|it| it.size_bytes));
    if matches!(state, State::Done | State::Incomplete) {
        for doomed in uploads {
            let address = format!("cos://{}/{}", plan.scope.bucket, doomed.upload.key);
            match (&doomed.error, doomed.state) {
                (Some(error), _) => {
                    printer.warning(&format!("the upload of {address} stays: {error}"));
                }
                (None, RemovalState::Deleted) => printer.data(&address),
                (None, _) => {}
            }
        }
        printer.note(&format!(
            "{} given up, {} freed",
            plural(given_up.count(), "upload"),
            size(freed_bytes)
        ));
    }
    printer.json(&UploadsReport {
        schema: "cvm-export.aborted-uploads.v1",
        bucket: &plan.scope.bucket,
        region: &plan.scope.region,
        state,
        freed_bytes,
        uploads,
        stays: &plan.stays,
    });
    end(result, state, context)
}

/// What is reported of `result`: an error before which nothing was deleted is all there is to tell.
fn reported(result: Result<State, Error>, is_begun: bool) -> Result<Result<State, Error>, Error> {
    match result {
        Err(error) if !is_begun && error.kind() != ErrorKind::Interrupted => Err(error),
        result => Ok(result),
    }
}

/// How a run ends after its report: what an error has left is some of several.
fn end(result: Result<State, Error>, state: State, context: &Context<'_>) -> Result<Exit, Error> {
    match (result, state) {
        (Err(error), _) if error.kind() == ErrorKind::Interrupted => Err(error),
        (Err(error), _) => {
            context.printer.error(&error, None);
            Ok(Exit::SomeFailed)
        }
        (Ok(_), State::Unchanged | State::Planned | State::Done) => Ok(Exit::Done),
        (Ok(_), State::Incomplete) => Ok(Exit::SomeFailed),
    }
}
