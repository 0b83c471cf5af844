//! The command line of Dormouse.
fn main() {}
