//! The surrogate on a real bridge, with taps whose guest is a thread. Needs root.
//!
//! Each test has a network namespace of its own, which goes away with the test's threads.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::cast_possible_truncation, reason = "counts of frames are small")]

mod frames;
mod lab;
mod loss;
mod offload;
mod older;
mod ovs;
mod presence;
mod replay;
mod stand_in;
mod vlan;
