//! A fresh simulated cloud inside this process, for one command: `--simulate`.

use std::path::Path;

use cvm_export::auth::Credentials;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::model::{BucketName, ImageId, Region};
use cvm_export::simulator::{Options, Simulator};

/// A simulated cloud and a state folder that both go when the command ends.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    simulator: Simulator,
    state: tempfile::TempDir,
}

impl Rehearsal {
    /// Starts a cloud that holds the samples, and `images` and `bucket` made up where they are none.
    pub(crate) async fn start(
        images: &[ImageId],
        bucket: Option<&BucketName>,
    ) -> Result<Self, Error> {
        let options = Options {
            invented_images: images.to_vec(),
            invented_buckets: bucket.cloned().into_iter().collect(),
            ..Options::default()
        };
        let simulator = Simulator::start(options).await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the simulated cloud did not start")
                .with_source(error)
        })?;
        let state = tempfile::tempdir().map_err(|error| {
            Error::new(ErrorKind::LocalDisk, "no temporary folder could be made").with_source(error)
        })?;
        Ok(Self { simulator, state })
    }

    pub(crate) fn endpoint_url(&self) -> String {
        self.simulator.endpoint_url()
    }

    pub(crate) fn credentials(&self) -> Credentials {
        self.simulator.credentials()
    }

    pub(crate) fn region(&self) -> Region {
        self.simulator.region()
    }

    pub(crate) fn state_folder(&self) -> &Path {
        self.state.path()
    }
}
