//! Exports by a copy that another machine has made, or that a lost journal knew: their records in the
//! bucket. Each is named after its copy, so that they are looked for by the image that was asked for.

use futures_util::{StreamExt, TryStreamExt};

use super::plan::bucket_region;
use crate::cloud::cos::CosErrorKind;
use crate::error::{Error, ErrorKind};
use crate::export::claim::{self, CLAIM_LIMIT_BYTES};
use crate::export::record::{Record, RecordError};
use crate::export::request::ExportRequest;
use crate::export::{Exporter, Known};
use crate::model::{ObjectKey, shell_line};

/// Records that are read together.
const CONCURRENT_READS: usize = 8;

impl Exporter {
    /// The newest record in the bucket of an export of this image by a copy, under the same prefix and in the
    /// same format. None where the bucket may not be looked at: the journal is then all there is.
    ///
    /// # Errors
    /// Of any other look that fails, and [`ErrorKind::Precondition`] for a record that cannot be read, unless
    /// `may_double`: what nobody has seen must not be taken for nothing, or a second copy is made.
    pub(super) async fn claimed_by_a_copy(
        &self,
        request: &ExportRequest,
        known: &Known,
        may_double: bool,
    ) -> Result<Option<Record>, Error> {
        let region = bucket_region(&self.cloud, request, known).await?;
        let cos = self.cloud.cos();
        let (bucket, region, prefix) = (&request.bucket, &region, request.prefix.as_ref());
        let claims = match claim::keys_under(&self.cloud, bucket, region, prefix).await {
            Ok(claims) => claims,
            Err(error) if error.kind() == CosErrorKind::NotPermitted => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if claims.is_cut_off {
            self.events.warn(format!(
                "bucket `{bucket}` has so many files under `{}…` that not all of them were looked through: an \
                 earlier export of this image by a copy may be among the rest",
                claims.start
            ));
        }
        let reads = claims.keys.iter().map(|key| async move {
            let read = cos.get_small_object(bucket, region, key, None, CLAIM_LIMIT_BYTES);
            let body = match read.await {
                Ok(None) => return Ok(None),
                Ok(Some((_, body))) => body,
                Err(error) if error.kind() == CosErrorKind::NotPermitted => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match claim::parse(&body) {
                Ok(record) => Ok(Some(record)),
                Err(problem) if may_double => {
                    self.events
                        .warn(format!("the record `{key}` is left alone: {problem}"));
                    Ok(None)
                }
                Err(problem) => Err(unreadable(key, problem)),
            }
        });
        let records: Vec<Option<Record>> = futures_util::stream::iter(reads)
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let of_this = |record: &Record| {
            let source = record.copied_from.as_ref().map(|source| &source.image_id);
            source == Some(&request.image_id)
                && record.bucket == request.bucket
                && record.prefix == request.prefix
                && record.format == request.format
        };
        let ours = records.into_iter().flatten().filter(of_this);
        Ok(ours.max_by_key(|record| (record.state().is_live(), record.created_at)))
    }
}

/// Refuses a second copy where a record may be of an export by one.
fn unreadable(key: &ObjectKey, problem: RecordError) -> Error {
    let message = format!(
        "the record `{key}` in the bucket cannot be read, so an export of this image by a copy may run; nothing \
         was submitted"
    );
    Error::new(ErrorKind::Precondition, message)
        .with_hint(
            "choose another `--prefix`; once it is known that none runs, make a copy with `--resubmit`",
        )
        .with_source(problem)
}

/// Refuses a second copy while an export by one runs elsewhere.
pub(super) fn runs_elsewhere(record: &Record) -> Error {
    let export_id = &record.export_id;
    let message = format!(
        "an export of this image by the copy `{}` runs already, as `{export_id}` says in the bucket; nothing was submitted",
        record.image_id
    );
    Error::new(ErrorKind::Precondition, message).with_hint(format!(
        "watch it with `{}`; once it is known to be dead, make another one with `--resubmit`",
        shell_line(&record.reattach())
    ))
}
