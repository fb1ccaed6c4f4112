//! One look at the bucket on behalf of one export. What it means is decided in `watch`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use crate::cloud::Cloud;
use crate::cloud::cos::{CosError, CosErrorKind, ObjectMeta};
use crate::export::record::Record;
use crate::model::ObjectKey;

/// How long a look waits for the uploads once it knows of the files. Uploads tell of the progress; a
/// listing that is throttled for half a minute must not hide that the files are there. Shorter than
/// what a look may take beyond the deadline of its watch.
const UPLOADS_PATIENCE: Duration = Duration::from_secs(5);

/// What one look showed.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// What HEAD said of each name.
    pub heads: BTreeMap<ObjectKey, Head>,
    /// What the listing of unfinished uploads showed.
    pub uploads: UploadsSeen,
}

impl Look {
    /// Whether every name of `record` was looked at, and neither a file nor an upload of it shows.
    pub(crate) fn shows_nothing_of(&self, record: &Record) -> bool {
        let names = record.files.iter().flat_map(|file| file.watched_keys());
        let mut heads = names.map(|key| self.heads.get(key));
        let is_missing = heads.all(|head| matches!(head, Some(Head::Missing)));
        let has_no_upload = match &self.uploads {
            UploadsSeen::Listed {
                unfinished,
                is_truncated,
            } => unfinished.is_empty() && !is_truncated,
            UploadsSeen::NotSeen => false,
        };
        is_missing && has_no_upload && record.files.iter().all(|file| file.object.is_none())
    }
}

/// What HEAD said of one name.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    /// An object stands there.
    Present(Box<ObjectMeta>),
    /// Nothing stands there.
    Missing,
    /// The caller may not look.
    Forbidden,
    /// There was no usable answer.
    Failed(String),
}

/// What the listing of unfinished uploads showed.
#[derive(Clone, Debug)]
pub(crate) enum UploadsSeen {
    /// The uploads under the watched names.
    Listed {
        /// Those that concern the export.
        unfinished: Vec<Unfinished>,
        /// Whether the listing was cut, so that what is missing may be there all the same.
        is_truncated: bool,
    },
    /// There was no listing.
    NotSeen,
}

/// An upload that grows.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    /// The key that it will have.
    pub key: ObjectKey,
    /// COS's name for the upload.
    pub upload_id: String,
    /// The bytes that it holds, where its parts could be listed whole.
    pub bytes: Option<u64>,
}

/// Looks at COS on behalf of one export, remembering the parts of its uploads.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    parts: BTreeMap<String, KnownParts>,
    may_not_list: bool,
}

/// The parts of one upload that are known without a gap, so that the next look asks for later ones.
#[derive(Clone, Copy, Debug, Default)]
struct KnownParts {
    last_number: u32,
    bytes: u64,
}

impl Observer {
    /// One look: a HEAD for each name of each unfinished file and one listing, together; then the
    /// parts of each upload that was listed.
    ///
    /// # Errors
    /// Only when COS does not accept the credentials at all; what else goes wrong is part of the look.
    pub(crate) async fn look(&mut self, cloud: &Cloud, record: &Record) -> Result<Look, CosError> {
        let cos = cloud.cos();
        let (bucket, region) = (&record.bucket, &record.region);
        let missing = record.files.iter().filter(|file| file.object.is_none());
        let names: Vec<&ObjectKey> = missing
            .flat_map(|file| file.names.iter().map(|name| &name.key))
            .collect();
        let heads = names.iter().map(|key| async {
            let head = match cos.head_object(bucket, region, key, None).await {
                Ok(Some(object)) => Head::Present(Box::new(object)),
                Ok(None) => Head::Missing,
                Err(error) => match error.kind() {
                    CosErrorKind::NotPermitted => Head::Forbidden,
                    CosErrorKind::Credentials => return Err(error),
                    _ => Head::Failed(error.to_string()),
                },
            };
            Ok(((*key).clone(), head))
        });
        let mut heads = pin!(futures_util::future::try_join_all(heads));
        let mut uploads = pin!(self.uploads(cloud, record, &names));
        let (heads, uploads) = tokio::select! {
            heads = &mut heads => {
                let uploads = tokio::time::timeout(UPLOADS_PATIENCE, uploads).await;
                (heads?, uploads.unwrap_or(UploadsSeen::NotSeen))
            }
            uploads = &mut uploads => (heads.await?, uploads),
        };
        Ok(Look {
            heads: heads.into_iter().collect(),
            uploads,
        })
    }

    /// The unfinished uploads under `names`, and what they hold.
    async fn uploads(
        &mut self,
        cloud: &Cloud,
        record: &Record,
        names: &[&ObjectKey],
    ) -> UploadsSeen {
        if self.may_not_list {
            return UploadsSeen::NotSeen;
        }
        let cos = cloud.cos();
        let (bucket, region) = (&record.bucket, &record.region);
        let list = match cos
            .list_uploads(bucket, region, &common_prefix(names), None)
            .await
        {
            Ok(list) => list,
            Err(error) => {
                self.may_not_list = error.kind() == CosErrorKind::NotPermitted;
                return UploadsSeen::NotSeen;
            }
        };
        let ours = list.uploads.into_iter().filter(|upload| {
            names.contains(&&upload.key) && !record.earlier_uploads.contains(&upload.upload_id)
        });
        let sizes = ours.map(|upload| {
            let known = self
                .parts
                .get(&upload.upload_id)
                .copied()
                .unwrap_or_default();
            async move {
                let page = cos
                    .list_parts(
                        bucket,
                        region,
                        &upload.key,
                        &upload.upload_id,
                        known.last_number,
                    )
                    .await;
                (upload, known, page.ok().flatten())
            }
        });
        let mut unfinished = Vec::new();
        for (upload, known, page) in futures_util::future::join_all(sizes).await {
            let bytes = page.and_then(|page| {
                let mut gapless = known;
                let mut bytes = known.bytes;
                for part in &page.parts {
                    bytes += part.size_bytes;
                    if part.number == gapless.last_number + 1 {
                        gapless.last_number = part.number;
                        gapless.bytes += part.size_bytes;
                    }
                }
                self.parts.insert(upload.upload_id.clone(), gapless);
                // A cut page says too little; the next look goes on where this one stopped.
                (!page.is_truncated).then_some(bytes)
            });
            unfinished.push(Unfinished {
                key: upload.key,
                upload_id: upload.upload_id,
                bytes,
            });
        }
        UploadsSeen::Listed {
            unfinished,
            is_truncated: list.is_truncated,
        }
    }
}

/// What all of `keys` start with, to narrow a listing.
fn common_prefix(keys: &[&ObjectKey]) -> String {
    let Some((first, rest)) = keys.split_first() else {
        return String::new();
    };
    let mut end = first.as_str().len();
    for key in rest {
        let same = first
            .as_str()
            .bytes()
            .zip(key.as_str().bytes())
            .take_while(|(a, b)| a == b);
        end = end.min(same.count());
    }
    while !first.as_str().is_char_boundary(end) {
        end -= 1;
    }
    first.as_str()[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples::key;

    #[test]
    fn listings_are_narrowed_to_what_all_names_start_with() {
        let cases: [(&[&str], &str); 9] = [
            (&[], ""),
            (&["p_xvda.raw"], "p_xvda.raw"),
            (&["p_img-1_system_snap-0.raw", "p_xvda.raw"], "p_"),
            (&["p_a", "p_ab", "p_abc"], "p_a"),
            (&["a", "b"], ""),
            // `é` and `è` share their first byte, `映` and `是` theirs: no character is cut in two.
            (&["xé", "xè"], "x"),
            (&["映像_a", "映是_a"], "映"),
            (&["é", "è"], ""),
            (&["映像_a", "映像_b"], "映像_"),
        ];
        for (names, expected) in cases {
            let keys: Vec<ObjectKey> = names.iter().map(|name| key(name)).collect();
            let seen = common_prefix(&keys.iter().collect::<Vec<_>>());
            assert_eq!(seen, expected, "asked: {names:?}");
        }
    }
}
