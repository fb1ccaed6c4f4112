//! `image`: check, submit once, watch, and fetch where that is asked for.

mod several;
mod summary;

use clap::ValueEnum;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{Budget, Cost};
use cvm_export::export::{
    Destination, ExportOptions, ExportRequest, Exporter, IfExists, Known, Queueing, RegionSetting,
    Waiting,
};
use cvm_export::model::{CheckName, ImageId};
use futures_util::{StreamExt, TryStreamExt};

use super::authorize;
use super::consent::{Consent, Question};
use super::create_bucket;
use super::exit::Exit;
use super::partial::Partial;
use super::settings::{JournalUse, Session};
use super::{Context, CostArgs, Finished, LandingArgs, RequestArgs, WatchArgs, values};
use several::Several;

/// Before files in the bucket are replaced.
const OVERWRITE: Question = Question {
    text: "replace files that already have the export's names?",
    unchanged: "nothing was submitted",
};

/// Exports of one command that run at once, unless it says otherwise; the account's own limit is not
/// published.
const CONCURRENT_EXPORTS: usize = 5;

/// Images that are looked up together before the first export.
const CONCURRENT_LOOKS: usize = 5;

/// A request for one image, and what was looked up to word it; or why there is none.
type Asked = Result<(ExportRequest, Known), Error>;

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("asking").args(["authorize", "create_bucket"]).multiple(true))]
pub(crate) struct Args {
    #[command(flatten)]
    request: RequestArgs,

    #[command(flatten)]
    watch: WatchArgs,

    /// What to do about files that already have the export's names
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    if_exists: IfExistsFlag,

    /// Check only, the cloud's own dry run included
    #[arg(long, alias = "DryRun")]
    dry_run: bool,

    /// Make the role that CVM needs, as `authorize --bucket` does for the whole bucket, when and only when it
    /// is not there
    #[arg(long)]
    authorize: bool,

    /// Make the bucket, private and in the image's region, when and only when it is not there
    #[arg(long, conflicts_with = "copy_to_bucket_region")]
    create_bucket: bool,

    /// Submit and leave; `wait` takes the watch up
    #[arg(long, conflicts_with_all = ["download", "copy_to_bucket_region", "copy_shared"])]
    no_wait: bool,

    /// Do not wait while the account's task limit or the image's state says "later"
    #[arg(long)]
    no_queue: bool,

    /// With several images: the most exports of this command that run at once. The account's own limit
    /// decides; exports above it are retried until they are accepted
    #[arg(long, value_name = "N", default_value_t = CONCURRENT_EXPORTS, value_parser = values::slots)]
    concurrent_exports: usize,

    /// Do not keep the export's record in the bucket
    #[arg(long)]
    no_claim: bool,

    /// Give up an earlier attempt whose outcome is unknown, and start anew
    #[arg(long)]
    resubmit: bool,

    #[command(flatten)]
    landing: LandingArgs,

    #[command(flatten)]
    cost: CostArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum IfExistsFlag {
    /// Use them as the result if they are proven to be this image's export; else fail
    #[default]
    #[value(alias = "skip")]
    Reuse,
    /// Fail
    Fail,
    /// Export again over them, after asking
    Overwrite,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let images = args.request.images()?;
    let budget = args.cost.budget(context.printer)?;
    if matches!(args.if_exists, IfExistsFlag::Overwrite) && !args.dry_run && !context.global.yes {
        context.ask(&OVERWRITE).await?;
    }
    let started = cvm_export::clock::now();
    let (bucket, format) = (args.request.bucket()?, args.request.format);
    let partials = images
        .iter()
        .map(|image_id| Partial::new(Some(image_id.clone()), Some(bucket), None, Some(format)));
    context.partials.begin(partials.collect(), !args.dry_run);
    let journal_use = if args.dry_run {
        JournalUse::IfThere
    } else {
        JournalUse::Needed
    };
    let mut names = args.request.names();
    if args.create_bucket {
        // A rehearsal must not hold it already.
        names.bucket = None;
    }
    let consent = if args.dry_run {
        Consent::ShowOnly
    } else {
        Consent::asked_for(context.global.yes)
    };
    let working = context
        .with_session(names, journal_use, async |session| {
            let mut destination = match images.first() {
                Some(image_id) if args.create_bucket => {
                    create_bucket::resolve(context, &session, bucket, image_id).await?
                }
                _ => super::resolve(context, &session, bucket).await?,
            };
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            let wording = images.iter().map(|image_id| {
                args.request
                    .request(context, &session, &destination, image_id, started)
            });
            let wording = futures_util::stream::iter(wording).buffered(CONCURRENT_LOOKS);
            let mut requests: Vec<Asked> = wording.collect().await;
            refuse_same_names(&requests, args.landing.download.is_some())?;
            let options = args.options(&session.region, budget);
            let is_held = options.budget.limit.is_some()
                && !args.request.skip_checks.contains(&CheckName::Cost);
            if requests.len() > 1 && is_held {
                let weighing = weigh_together(&exporter, &mut requests, &options, context);
                context.until_signalled(weighing).await?;
            }
            let asked = Asking {
                args: &args,
                context,
                session: &session,
                exporter: &exporter,
                options: &options,
                consent,
            };
            asked
                .change_account(&mut destination, &mut requests, &images)
                .await?;
            let several = Several {
                context,
                exporter: &exporter,
                events: &session.events,
                images: &images,
                options: &options,
                scope: args.request.scope(),
                at_once: args.concurrent_exports,
                is_dry_run: args.dry_run,
            };
            Ok(several.run(requests).await)
        })
        .await;
    let results = context.show_interrupted(working)?;
    if images.len() == 1 {
        return one(results, context);
    }
    Ok(summary::show(&images, results, context))
}

/// What the account may be changed for.
struct Asking<'a> {
    args: &'a Args,
    context: &'a Context<'a>,
    session: &'a Session,
    exporter: &'a Exporter,
    options: &'a ExportOptions,
    consent: Consent,
}

impl Asking<'_> {
    /// Makes the bucket and the role where that was asked for and they are missing. Nothing of the account
    /// is changed for an export that is refused all the same.
    async fn change_account(
        &self,
        destination: &mut Destination,
        requests: &mut [Asked],
        images: &[ImageId],
    ) -> Result<(), Error> {
        let (args, context, consent) = (self.args, self.context, self.consent);
        let mended = args.mended();
        let is_refused_anyway = async |(request, known): &(ExportRequest, Known)| {
            let looking = self
                .exporter
                .is_refused_anyway(request, known, self.options, &mended);
            context.until_signalled(async { Ok(looking.await) }).await
        };
        if let (true, Some(image_id)) = (args.create_bucket, images.first()) {
            let could_go_ahead = async || {
                for asked in requests.iter().flatten() {
                    if !is_refused_anyway(asked).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            create_bucket::where_missing(
                context,
                self.session,
                destination,
                image_id,
                could_go_ahead,
                consent,
            )
            .await?;
            for (_, known) in requests.iter_mut().flatten() {
                known.buckets = destination.buckets.clone();
            }
        }
        if args.authorize && !args.request.skip_checks.contains(&CheckName::Role) {
            let asked = requests.iter().flatten();
            let session = self.session;
            authorize::where_needed(
                context,
                session,
                destination,
                asked,
                is_refused_anyway,
                consent,
            )
            .await?;
        }
        Ok(())
    }
}

/// Holds all exports of a command together to what it may cost, before any of them is submitted.
async fn weigh_together(
    exporter: &Exporter,
    requests: &mut [Asked],
    options: &ExportOptions,
    context: &Context<'_>,
) -> Result<(), Error> {
    let pricing = requests.iter_mut().flatten();
    let pricing = pricing.map(|(request, known)| async {
        let facts = exporter.price(request, known, options).await?;
        Ok::<_, Error>((facts.total(), facts.line(request.asked_image())))
    });
    let weighed: Vec<(Cost, Option<String>)> = futures_util::stream::iter(pricing)
        .buffered(CONCURRENT_LOOKS)
        .try_collect()
        .await?;
    let costs = weighed.iter().map(|(cost, _)| cost);
    let over = options.budget.require(&Cost::sum(costs));
    over.map_err(|over| {
        // Where it goes on, each export says its own line.
        for line in weighed.iter().filter_map(|(_, line)| line.as_ref()) {
            context.printer.note(line);
        }
        let evidence = format!(
            "all exports together: {}; nothing was submitted",
            over.evidence
        );
        Error::new(ErrorKind::Precondition, evidence).with_hint(over.remedy)
    })
}

/// Two images under one prefix would write the same files by the console's rule; in a folder of this
/// machine the last segment alone tells prefixes apart.
fn refuse_same_names(requests: &[Asked], in_one_folder: bool) -> Result<(), Error> {
    let mut prefixes = std::collections::BTreeSet::new();
    for (request, _) in requests.iter().flatten() {
        let prefix = request.prefix.as_ref().map_or("", |prefix| prefix.as_str());
        let told_apart = match prefix.rsplit_once('/') {
            Some((_, last)) if in_one_folder => last,
            _ => prefix,
        };
        if !prefixes.insert(told_apart) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "--prefix: two of the images would both have `{prefix}` (example: `backup-{{image_id}}`)"
                ),
            ));
        }
    }
    Ok(())
}

fn one(results: Vec<Result<Finished, Error>>, context: &Context<'_>) -> Result<Exit, Error> {
    let result = results
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Unexpected, "no image was named")));
    let finished = context.show_interrupted(result)?;
    let exit = finished.show(context);
    context.printer.json(&finished.outcome);
    Ok(exit)
}

impl Args {
    /// The checks that pass once the bucket and the role are made, as far as this run makes them.
    fn mended(&self) -> Vec<CheckName> {
        let by_bucket = [
            CheckName::BucketRegion,
            CheckName::CosActive,
            CheckName::DownloadRight,
        ];
        let mut mended = Vec::new();
        if self.create_bucket {
            mended.extend(by_bucket);
        }
        if self.authorize {
            mended.push(CheckName::Role);
        }
        mended
    }

    fn options(&self, region: &RegionSetting, budget: Budget) -> ExportOptions {
        ExportOptions {
            copies: self.request.copies.wishes(region),
            if_exists: match self.if_exists {
                IfExistsFlag::Fail => IfExists::Fail,
                IfExistsFlag::Reuse => IfExists::Reuse,
                IfExistsFlag::Overwrite => IfExists::Overwrite,
            },
            waiting: if self.no_wait {
                Waiting::Detach
            } else {
                Waiting::Watch
            },
            timeout: self.watch.timeout,
            poll: self.watch.poll(),
            queueing: if self.no_queue {
                Queueing::Refuse
            } else {
                Queueing::Wait
            },
            keep_claim: !self.no_claim,
            skipped_checks: self.request.skip_checks.clone(),
            resubmit: self.resubmit,
            landing: self.landing.landing(&budget),
            budget,
        }
    }
}
