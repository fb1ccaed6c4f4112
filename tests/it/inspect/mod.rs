//! What is said of disks: the simulator's own, and those of other people's programs.

// `sfdisk` and its like are Linux's own.
#[cfg(target_os = "linux")]
mod made_by_others;
mod simulated;
