//! Deletes: of many objects at once, and of unfinished uploads.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use md5::{Digest, Md5};
use quick_xml::escape::escape;
use serde::Deserialize;

use super::error::Problem;
use super::young::YoungDelete;
use super::{Call, CosClient, CosError, CosErrorKind};
use crate::cloud::http::Response;
use crate::model::{BucketName, CloudText, ObjectKey, Region};

/// One object, or one version of it, that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Its key.
    pub key: ObjectKey,
    /// The version that goes for good; without one a versioned bucket only sets a delete marker.
    pub version_id: Option<String>,
}

/// What COS says of one deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDeletion {
    /// It is done, or nothing stood there. `is_marker` says that a delete marker was set or taken away.
    Deleted {
        /// Whether a delete marker is what came or went.
        is_marker: bool,
    },
    /// It is not done.
    Refused {
        /// COS's code.
        code: CloudText,
        /// COS's words.
        message: CloudText,
    },
    /// The answer does not speak of it.
    NotTold,
}

impl CosClient {
    /// The most keys of one [`CosClient::delete_objects`] (product page 436/8289).
    pub const DELETE_LIMIT: usize = 1000;

    /// Deletes up to [`CosClient::DELETE_LIMIT`] objects; the results are in their order (DELETE Multiple
    /// Objects, product page 436/8289). COS takes no condition: what stands under a key when the call arrives is
    /// deleted. So it is sent once, and whoever repeats it can look before.
    ///
    /// # Errors
    /// Where none may be deleted: [`CosErrorKind::NotPermitted`] without `name/cos:DeleteMultipleObjects`,
    /// and any other [`CosError`].
    pub async fn delete_objects(
        &self,
        bucket: &BucketName,
        region: &Region,
        deletions: &[Deletion],
    ) -> Result<Vec<KeyDeletion>, CosError> {
        let signed = self.sign_delete(bucket, region).await;
        self.delete_signed(signed, deletions).await
    }

    /// Signs a delete of objects that are named later.
    pub(crate) async fn sign_delete(&self, bucket: &BucketName, region: &Region) -> YoungDelete {
        let mut call = Call::get("DELETE Multiple Objects", self.host(bucket, region));
        call.method = Method::POST;
        call.parameters = vec![("delete", String::new())];
        call.headers = vec![("content-type", "application/xml".to_owned())];
        YoungDelete(self.sign_young(call).await)
    }

    /// Sends a signed delete, once.
    ///
    /// # Errors
    /// As [`CosClient::delete_objects`].
    pub(crate) async fn delete_signed(
        &self,
        signed: YoungDelete,
        deletions: &[Deletion],
    ) -> Result<Vec<KeyDeletion>, CosError> {
        let body = body_of(deletions);
        let digest = BASE64_STANDARD.encode(Md5::digest(&body));
        // COS checks the body by it; the signature need not cover it (product page 436/7778).
        let digest = ("content-md5", digest);
        let read = |response: &Response| results(response, deletions);
        self.send_young(signed.0, Bytes::from(body), Some(digest), read)
            .await
    }

    /// Gives an unfinished upload up, and its parts with it; whether it was still there (Abort Multipart
    /// Upload, product page 436/7740).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:AbortMultipartUpload`, and any other [`CosError`].
    pub async fn abort_upload(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        upload_id: &str,
    ) -> Result<bool, CosError> {
        let mut call = Call {
            method: Method::DELETE,
            key: Some(key),
            success: StatusCode::NO_CONTENT,
            ..Call::get("Abort Multipart Upload", self.host(bucket, region))
        };
        call.parameters = vec![("uploadId", upload_id.to_owned())];
        match self.call(&call, |_| Ok(())).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == CosErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The body, in the mode that tells of every key: one that is missing in the answer is not done.
fn body_of(deletions: &[Deletion]) -> String {
    let mut body = "<Delete><Quiet>false</Quiet>".to_owned();
    for deletion in deletions {
        body.push_str("<Object><Key>");
        body.push_str(&escape(deletion.key.as_str()));
        body.push_str("</Key>");
        if let Some(version_id) = &deletion.version_id {
            body.push_str("<VersionId>");
            body.push_str(&escape(version_id.as_str()));
            body.push_str("</VersionId>");
        }
        body.push_str("</Object>");
    }
    body.push_str("</Delete>");
    body
}

fn results(response: &Response, deletions: &[Deletion]) -> Result<Vec<KeyDeletion>, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct DeleteResult {
        #[serde(default)]
        deleted: Vec<Deleted>,
        #[serde(default)]
        error: Vec<Refused>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Deleted {
        key: String,
        #[serde(default)]
        version_id: Option<String>,
        #[serde(default)]
        delete_marker: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refused {
        key: String,
        #[serde(default)]
        version_id: Option<String>,
        code: CloudText,
        #[serde(default)]
        message: CloudText,
    }
    let result: DeleteResult = super::answers::read(response)?;
    let mut told = std::collections::HashMap::new();
    for deleted in &result.deleted {
        let is_marker = deleted.delete_marker.as_deref() == Some("true");
        let version_id = deleted.version_id.as_deref();
        told.insert(
            (deleted.key.as_str(), version_id.filter(|id| !id.is_empty())),
            KeyDeletion::Deleted { is_marker },
        );
    }
    for refused in &result.error {
        let version_id = refused.version_id.as_deref();
        let refusal = KeyDeletion::Refused {
            code: refused.code.clone(),
            message: refused.message.clone(),
        };
        told.insert(
            (refused.key.as_str(), version_id.filter(|id| !id.is_empty())),
            refusal,
        );
    }
    let results = deletions.iter().map(|deletion| {
        let name = (deletion.key.as_str(), deletion.version_id.as_deref());
        told.remove(&name).unwrap_or(KeyDeletion::NotTold)
    });
    Ok(results.collect())
}
