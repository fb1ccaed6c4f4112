//! `image --create-bucket`: makes the bucket in the image's region where it is not there yet.

use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{Destination, find_missing_bucket};
use cvm_export::model::ImageId;

use super::Context;
use super::consent::Consent;
use super::settings::Session;

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
