//! Starts Kinglet.
fn main() {}
