//! The library behind `cvm-export`: it takes a custom image out of Tencent Cloud, and proves it.
//!
//! ```text
//!   export ──────────► cloud ──────► auth        (pure signing)
//!     │                  │             │
//!     ├──► estimate      │             │            (what it costs: quantities times prices; pure)
//!     └──────────────────┴─────────────┴──► model · event · error · clock · crc64 · environment   (leaves)
//!
//!   simulator ──► auth, model                    (a small Tencent Cloud; feature `simulator`)
//!   inspect ────► model, error                   (what a raw disk holds; feature `inspect`)
//! ```
//!
//! - [`export`] is the domain: from an [`ExportRequest`](export::ExportRequest) over checks, one submit
//!   and a watch to an [`ExportOutcome`](export::ExportOutcome). [`Exporter`](export::Exporter) is its door.
//! - [`cloud`] is everything that crosses the network: signing at the moment of sending, retries by
//!   meaning, the actions of API 3.0, the object storage, and the chain of credentials.
//! - [`estimate`] is what an export and a download cost, by a price table that is data.
//! - [`auth`] is both signatures as pure functions.
//! - `inspect` reads a raw disk image and says what it holds, without root and without writing.
//! - [`event`] is what happens while work goes on; the library never prints.
//! - [`error`] is what callers branch on and people read.
//!
//! The command line is a program of its own on top of this public interface.

pub mod auth;
pub mod clock;
pub mod cloud;
mod crash;
pub mod crc64;
pub mod download;
mod durable;
pub mod environment;
pub mod error;
pub mod estimate;
pub mod event;
pub mod export;
#[cfg(feature = "inspect")]
pub mod inspect;
pub mod model;
#[cfg(feature = "simulator")]
pub mod simulator;
