//! What a check concludes, and the names of the checks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::InvalidValue;

/// The conclusion of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// What was looked at is as the export needs it.
    Pass,
    /// The export can go on; the person should know something.
    Warn,
    /// The export cannot succeed.
    Fail,
    /// It could not be seen: not permitted to look, or no usable answer.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        })
    }
}

/// One check's verdict with what it saw and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check speaks.
    pub check: CheckName,
    /// What it concluded.
    pub verdict: Verdict,
    /// What was seen, as a lower-case fragment.
    pub evidence: String,
    /// What to do next; `None` when nothing needs doing.
    pub remedy: Option<String>,
}

macro_rules! check_names {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The name of a check, as it stands in JSON and after `--skip-check`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum CheckName {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl CheckName {
            /// Every name, in the order in which findings are reported.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name as scripts write it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

check_names! {
    /// Which keys are in use, and where they come from.
    Credentials = "credentials",
    /// Who the keys belong to.
    Identity = "identity",
    /// This machine's clock is near the server's.
    Clock = "clock",
    /// The hosts that are sent to answer.
    Network = "network",
    /// Only custom images of this account can be exported.
    ImageType = "image-type",
    /// The image exists here and no other operation holds it.
    ImageState = "image-state",
    /// Windows is refused.
    Platform = "platform",
    /// Red Hat is refused.
    License = "license",
    /// The system disk and each data disk hold at most 500 GB.
    DiskSize = "disk-size",
    /// A whole-machine image holds at most five data disks.
    DiskCount = "disk-count",
    /// Encrypted snapshots are refused.
    Encryption = "encryption",
    /// The format is one that the exporter writes.
    Format = "format",
    /// The image may be copied as it has to be: only where a copy is asked for and needed.
    ImageCopy = "image-copy",
    /// The bucket exists, in the image's region.
    BucketRegion = "bucket-region",
    /// COS is active for the account.
    CosActive = "cos-active",
    /// CVM may write to the bucket.
    Role = "role",
    /// The account may use the export feature.
    Feature = "feature",
    /// The prefix makes valid object keys.
    Prefix = "prefix",
    /// Nothing of the expected names stands or grows in the bucket.
    NameCollision = "name-collision",
    /// Exports that already run count against the account's limit.
    Quota = "quota",
    /// The folder for a download can be written to, and nothing stands in the way.
    DownloadFolder = "download-folder",
    /// The folder for a download has room.
    DownloadRoom = "download-room",
    /// The caller may read what the export writes.
    DownloadRight = "download-right",
    /// It costs no more than was allowed.
    Cost = "cost",
    /// What the cloud itself says to a dry run.
    ServerDryRun = "server-dry-run",
}

impl CheckName {
    /// Whether the check concerns the account alone, whatever it exports.
    #[must_use]
    pub const fn is_of_account(self) -> bool {
        matches!(
            self,
            Self::Credentials | Self::Identity | Self::Clock | Self::Network
        )
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl std::str::FromStr for CheckName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::ALL
            .iter()
            .copied()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|name| name.as_str()).collect();
                InvalidValue::new(
                    "check name",
                    text,
                    format!("no check has this name; there are {}", known.join(", ")),
                    "disk-size",
                )
            })
    }
}
