//! A small Tencent Cloud on loopback: rehearsals, demonstrations, tests.
//!
//! A world, not a script: images, roles and buckets exist, exports start tasks, time passes, uploads
//! grow, objects appear. It never flatters the client. Every signature is recomputed from the bytes
//! received, unknown fields are refused, and refusals carry the cloud's codes. It decodes requests by
//! itself and shares no types with the client, so that a misnamed field cannot be wrong on both sides
//! and pass.
//!
//! What it leaves out: the exporter does not convert (whatever the format, objects hold the disks'
//! raw bytes), and buckets have no policies, life cycles or other settings but versions (501
//! `NotImplemented`).
//!
//! It binds to loopback only, speaks plain HTTP, and accepts only the credentials that it makes up
//! itself. Clients reach it by dialling [`Simulator::address`] with the `Host` of the real service,
//! or with its address as their HTTP proxy.
//!
//! # Examples
//!
//! ```
//! use cvm_export::simulator::{Options, Simulator};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cvm_export::simulator::SimulatorError> {
//! let simulator = Simulator::start(Options::default()).await?;
//! assert!(simulator.endpoint_url().starts_with("http://127.0.0.1:"));
//! simulator.change(|world| world.task_limit = 1);
//! assert!(simulator.calls().is_empty());
//! # Ok(())
//! # }
//! ```

mod admin;
mod api;
mod body;
mod copies;
mod cos;
mod digest;
mod disk;
mod effects;
mod export;
mod fault;
mod grants;
mod holds;
mod keys;
mod log;
mod metadata;
mod presets;
mod samples;
mod server;
mod socket;
mod storage;
#[cfg(test)]
mod tests;
mod verify;
mod wire;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::auth::{Credentials, Secret};
use crate::model::{BucketName, ImageId, Region};

pub use disk::Disk;
pub use fault::{Effect, Fault, InvalidFaults};
pub use holds::HeldCall;
pub use keys::{Keys, WebIdentity};
pub use log::Call;
pub use presets::Preset;
pub use storage::{Bucket, Object};
pub use world::{
    CustomPolicy, DiskUsage, DryRunAnswer, ExportFailure, Image, ImageDisk, Policy, Role, World,
    derived_snapshot_id,
};

/// The rule by which exported files are really named. The answer tells the API's names either way;
/// the documentation of API and console disagree, and a client has to survive both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// `<prefix>_<imageId>_system_<snapshotId>.raw`, as the API page says.
    #[default]
    Api,
    /// `<prefix>_xvda.raw`, as the console's guide says.
    Console,
}

/// What is on the disk of an image.
#[derive(Clone, Debug)]
pub enum DiskSource {
    /// A file, as it is when it is read.
    File(PathBuf),
    /// Partitions and file systems that are made up, on so many bytes; it takes no room.
    MadeUp(u64),
}

/// What a simulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; a loopback address. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The region of everything that is made up.
    pub region: Region,
    /// Images to make up: Linux, one disk of 10 GB.
    pub invented_images: Vec<ImageId>,
    /// Buckets to make up; the account's AppId is appended where a name ends in none.
    pub invented_buckets: Vec<BucketName>,
    /// Further buckets with their regions; the AppId is appended as above.
    pub buckets: Vec<(BucketName, Region)>,
    /// Whether the role is there that lets CVM write exports.
    pub has_export_role: bool,
    /// Whether that role is as the console's tick makes it, see [`Role::by_console`].
    pub is_role_by_console: bool,
    /// Images of one disk.
    pub images: Vec<(ImageId, DiskSource)>,
    /// How exported files are really named.
    pub naming: Naming,
    /// How much faster than real ones exports run; infinity completes them at once.
    pub speed: f64,
    /// The faults in force from the start.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            region: "ap-guangzhou".parse().expect("a region code"),
            invented_images: Vec::new(),
            invented_buckets: Vec::new(),
            buckets: Vec::new(),
            has_export_role: true,
            is_role_by_console: false,
            images: Vec::new(),
            naming: Naming::default(),
            speed: 100.0,
            faults: Vec::new(),
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The address can be reached from other machines.
    #[error("the simulator listens on loopback only, and `{0}` is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The address is taken or may not be used.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file of an image cannot be opened.
    #[error("cannot open the disk `{}`", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Time cannot run that way.
    #[error("the speed `{0}` is not a positive number")]
    Speed(f64),
}

/// A running simulator. It serves on the runtime that started it, until it is dropped.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<server::Shared>,
    address: SocketAddr,
    region: Region,
    credentials: Credentials,
    server: AbortHandle,
}

impl Simulator {
    /// Fills the world, binds the address and begins to serve.
    ///
    /// # Errors
    /// The address is not a loopback address or cannot be bound, a disk file cannot be opened, or
    /// the speed is not positive.
    pub async fn start(options: Options) -> Result<Self, SimulatorError> {
        let listen = options.listen;
        if !listen.ip().is_loopback() {
            return Err(SimulatorError::NotLoopback(listen));
        }
        if options.speed.is_nan() || options.speed <= 0.0 {
            return Err(SimulatorError::Speed(options.speed));
        }
        let mut world = samples::world(&options)?;
        let credentials = made_up_credentials();
        world.accept(credentials.clone());
        let refused = |source| SimulatorError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let shared = Arc::new(server::Shared::new(world, options.faults));
        let server = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            region: options.region,
            credentials,
            server: server.abort_handle(),
        })
    }

    /// What to give as `--endpoint-url`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The credentials that it accepts, made up at its start.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// The region of everything that is made up.
    #[must_use]
    pub fn region(&self) -> Region {
        self.region.clone()
    }

    /// The calls so far, the latest 100,000 of them, in the order in which they were answered.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls()
    }

    /// How many calls of `operation` have come since the faults were set, those among them that a fault still
    /// holds.
    #[must_use]
    pub fn begun_calls(&self, operation: &str) -> u32 {
        self.shared.begun_calls(operation)
    }

    /// Empties the call log.
    pub fn clear_calls(&self) {
        self.shared.clear_calls();
    }

    /// Looks at the present world or turns its knobs. No call is processed meanwhile, so `change`
    /// must not wait for one, and must not be called inside itself.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.shared.world())
    }

    /// Replaces the faults in force, and counts occurrences anew. Calls that are held go on waiting.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.shared.set_faults(faults);
    }

    /// The faults in force that no call has met yet.
    #[must_use]
    pub fn unmet_faults(&self) -> Vec<Fault> {
        self.shared.unmet_faults()
    }

    /// The calls that a hold keeps now, in the order of their arrival.
    #[must_use]
    pub fn held(&self) -> Vec<HeldCall> {
        self.shared.holds().held()
    }

    /// Waits until the hold `name` keeps a call.
    pub async fn wait_held(&self, name: &str) -> HeldCall {
        self.shared.holds().arrived(name).await
    }

    /// Lets the calls go on that the hold `name` keeps now, and returns their number. Later calls pass
    /// it as well, until the faults are replaced; if its fault has an occurrence, they are held all the same.
    pub fn release(&self, name: &str) -> usize {
        self.shared.holds().release(name)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Keys of the right form that anybody can see are fake.
fn made_up_credentials() -> Credentials {
    let tail = |count| -> String { (0..count).map(|_| fastrand::alphanumeric()).collect() };
    Credentials {
        secret_id: format!("AKIDsimulated{}", tail(23)),
        secret_key: Secret::new(format!("simulated{}", tail(23))),
        token: None,
        expires_at: None,
    }
}
