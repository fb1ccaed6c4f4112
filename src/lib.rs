//! The library behind `cvm-export`.
pub mod auth;
pub mod error;
pub mod event;
pub mod model;
