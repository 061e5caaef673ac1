//! The `streamer` command.
fn main() {}
