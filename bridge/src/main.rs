//! The entry point: which kind of process this is.

fn main() {}
