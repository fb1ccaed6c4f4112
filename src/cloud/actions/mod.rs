//! The actions that are called, a file for each product: one pair of structs an action.
//!
//! Every field of an answer that the documents call optional may be absent or null, and fields that
//! are not used here are not named, so that new ones never break anything.

pub mod cam;
pub mod cbs;
pub mod cvm;
pub mod region;
pub mod sts;

use serde::{Deserialize, Deserializer};

/// Reads null as the default value, as an absent field would be.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
