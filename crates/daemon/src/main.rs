//! The daemon of Dormouse.
fn main() {}
