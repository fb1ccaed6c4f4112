//! CBS, version 2017-03-12.

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::cloud::api::Action;
use crate::model::{CloudText, SnapshotId};

/// Lists snapshots (SDK `cbs/v20170312`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSnapshots {
    /// The snapshots.
    pub snapshot_ids: Vec<SnapshotId>,
    /// How many to answer with; 20 by default and 100 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Action for DescribeSnapshots {
    const SERVICE: &'static str = "cbs";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "DescribeSnapshots";
    type Response = DescribeSnapshotsResponse;
}

/// A page of snapshots.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSnapshotsResponse {
    /// The snapshots.
    #[serde(default, deserialize_with = "null_as_default")]
    pub snapshot_set: Vec<Snapshot>,
}

/// A snapshot.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: CloudText,
    /// Whether it is encrypted.
    #[serde(default)]
    pub encrypt: Option<bool>,
}
