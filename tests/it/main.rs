//! The integration tests: the binary and the facades, from outside.

mod account;
mod again;
mod authorize;
mod bad_input;
mod cli;
mod commands;
mod create_bucket;
mod credentials;
mod credentials_cases;
mod disk;
mod download;
mod faults;
mod image;
mod inspect;
mod landing;
mod layering;
mod lost;
mod network;
mod refusals;
mod secrets;
mod signing;
mod simulate;
mod sites;
mod support;
mod verify;
mod wire;
