//! Exports by a copy that another machine has made, or that a lost journal knew: their records in the
//! bucket. Each is named after its copy, so that they are looked for by the image that was asked for.

use futures_util::StreamExt;

use super::plan::bucket_region;
use crate::error::{Error, ErrorKind};
use crate::export::claim::CLAIM_LIMIT_BYTES;
use crate::export::record::Record;
use crate::export::request::{CLAIM_SUFFIX, ExportRequest};
use crate::export::{Exporter, Known};
use crate::model::{ObjectKey, Prefix, shell_line};

/// Pages of names that are looked through.
const PAGES: usize = 20;
/// Records that are read together.
const CONCURRENT_READS: usize = 8;

impl Exporter {
    /// The newest record in the bucket of an export of this image by a copy, under the same prefix and in the
    /// same format. None where the bucket may not be looked at: the journal is then all there is.
    pub(super) async fn claimed_by_a_copy(
        &self,
        request: &ExportRequest,
        known: &Known,
    ) -> Result<Option<Record>, Error> {
        let region = bucket_region(&self.cloud, request, known).await?;
        let cos = self.cloud.cos();
        let start = match &request.prefix {
            Some(prefix) => format!("{}_img-", Prefix::as_str(prefix)),
            None => "img-".to_owned(),
        };
        let (mut keys, mut marker) = (Vec::<ObjectKey>::new(), None);
        for _ in 0..PAGES {
            let page = cos.list_objects(&request.bucket, &region, &start, marker.as_deref());
            let Ok(page) = page.await else {
                return Ok(None);
            };
            let names = page.objects.into_iter().map(|object| object.key);
            keys.extend(names.filter(|key| key.as_str().ends_with(CLAIM_SUFFIX)));
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        let reads = keys.iter().map(|key| async {
            let read = cos.get_small_object(&request.bucket, &region, key, None, CLAIM_LIMIT_BYTES);
            let (_, body) = read.await.ok()??;
            Record::from_json(&body).ok()
        });
        let records: Vec<Option<Record>> = futures_util::stream::iter(reads)
            .buffered(CONCURRENT_READS)
            .collect()
            .await;
        let of_this = |record: &Record| {
            let source = record.copied_from.as_ref().map(|source| &source.image_id);
            source == Some(&request.image_id)
                && record.bucket == request.bucket
                && record.prefix == request.prefix
                && record.format == request.format
        };
        let ours = records.into_iter().flatten().filter(of_this);
        Ok(ours.max_by_key(|record| (record.state.is_live(), record.created_at)))
    }
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
