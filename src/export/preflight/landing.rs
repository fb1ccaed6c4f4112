//! What was seen of the folder that the files are to be fetched into.

use std::path::PathBuf;

use super::facts::Fact;
use crate::cloud::Network;
use crate::download::{FolderLook, look_at_folder};
use crate::error::one_line;
use crate::export::landing::{Landing, companion_names};
use crate::export::request::{ExpectedFile, ExportRequest};
use crate::model::ImageFormat;

/// What is known of a download before the export is submitted.
#[derive(Clone, Debug)]
pub struct LandingFacts {
    /// The folder.
    pub folder: PathBuf,
    /// Whether a file that stands in the way is replaced.
    pub replaces: bool,
    /// What the folder is like, or why no file can be made there.
    pub look: Result<FolderLook, String>,
    /// Names that the download would write and that stand there already.
    pub in_the_way: Vec<String>,
    /// The size of the disks, which RAW files have; `None` where it is not known.
    pub disk_bytes: Option<u64>,
    /// Whether the files will be RAW, so that their sizes are the disks'.
    pub is_raw: bool,
    /// The network that the files would come over.
    pub network: Network,
    /// Whether the caller may read objects of these names.
    pub right: Fact<()>,
}

impl LandingFacts {
    /// Looks at the folder of `landing` for the `files` that the export would write. `right` is whether an object
    /// beside them can be read, `network` the one that they would come over.
    pub(super) fn gather(
        landing: Landing,
        request: &ExportRequest,
        files: &Result<Vec<ExpectedFile>, String>,
        right: Fact<()>,
        network: Network,
    ) -> Self {
        let look = look_at_folder(&landing.folder).map_err(|error| one_line(&error));
        let files = files.as_deref().unwrap_or_default();
        // The most trusted name alone: a file under the console's name is none of this export's.
        let keys = files.iter().filter_map(|file| file.names.first());
        let mut names: Vec<String> = keys.map(|key| key.file_name().to_owned()).collect();
        let companions = companion_names(request.prefix.as_ref(), &request.image_id);
        names.extend(companions.into_iter().flatten());
        names.retain(|name| landing.folder.join(name).symlink_metadata().is_ok());
        let bytes = files.iter().try_fold(0_u64, |sum, file| {
            sum.checked_add(file.size_gib?.checked_mul(1 << 30)?)
        });
        Self {
            replaces: landing.options.force,
            folder: landing.folder,
            look,
            in_the_way: names,
            disk_bytes: bytes.filter(|bytes| *bytes > 0),
            is_raw: request.format == ImageFormat::Raw,
            network,
            right,
        }
    }
}
