//! The integration tests: the binary and the facades, from outside.

fn main() {}
