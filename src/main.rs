//! The binary: builds everything once and waits for a signal.

fn main() {}
