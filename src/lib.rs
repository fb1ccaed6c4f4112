//! The library behind `cvm-export`.

pub mod auth;
pub mod clock;
pub mod cloud;
pub mod environment;
pub mod error;
pub mod event;
pub mod export;
pub mod model;
