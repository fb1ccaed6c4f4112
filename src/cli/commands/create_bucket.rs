//! `image --create-bucket`: makes the bucket in the image's region where it is not there yet.

use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::EventKind;
use cvm_export::export::{Destination, find_missing_bucket, locate_image};
use cvm_export::model::{BucketName, ImageId};

use super::Context;
use super::consent::Consent;
use super::settings::Session;

/// Settles bucket and region where the bucket may not be there: it belongs where the image is.
pub(super) async fn resolve(
    context: &Context<'_>,
    session: &Session,
    bucket: &BucketName,
    image_id: &ImageId,
) -> Result<Destination, Error> {
    let mut setting = session.region.clone();
    let found = super::resolve_by(context, session, bucket, &setting).await;
    let mut destination = match found {
        Err(error) if error.kind() == ErrorKind::Precondition && setting.said().is_none() => {
            let any = session.cloud.endpoints().any_region();
            setting.ambient = Some((any, "this tool".to_owned()));
            super::resolve_by(context, session, bucket, &setting).await?
        }
        found => found?,
    };
    if destination.listed().is_none() && setting.flag.is_none() {
        let locating = locate_image(&session.cloud, &setting, &destination.region, image_id);
        let (region, _) = context.until_signalled(locating).await?;
        if region != destination.region {
            let message = format!("region {region}: the one of image `{image_id}`");
            session.events.emit(EventKind::Settled { message });
            destination.region = region;
            context.partials.settle(&destination);
        }
    }
    Ok(destination)
}

/// Makes the bucket of `destination` in the region of `image_id`, when and only when it is missing and one of
/// the exports could then go ahead. Whether it is enough is for the checks of the export to say.
pub(super) async fn where_missing(
    context: &Context<'_>,
    session: &Session,
    destination: &mut Destination,
    image_id: &ImageId,
    could_go_ahead: impl AsyncFn() -> Result<bool, Error>,
    consent: Consent,
) -> Result<(), Error> {
    let finding = find_missing_bucket(&session.cloud, destination, &session.region, image_id);
    let Some(missing) = context.until_signalled(finding).await? else {
        return Ok(());
    };
    let printer = context.printer;
    if !could_go_ahead().await? {
        printer.note("the export is refused anyway, so no bucket is made for it");
        return Ok(());
    }
    let (bucket, region) = (&missing.bucket, &missing.region);
    let change = format!("create the private bucket `{bucket}` in {region}");
    context.show(consent, &format!("will {change}"));
    if !context.agree(consent).await? {
        return Ok(());
    }
    let cancel = context.signals.cancel();
    missing.create(&session.cloud, destination, &cancel).await?;
    printer.note(&format!("done: {change}"));
    if cancel.is_cancelled() {
        let message = format!("interrupted; bucket `{bucket}` was made, and no export was started");
        return Err(Error::new(ErrorKind::Interrupted, message));
    }
    Ok(())
}
