//! The surrogate on a real bridge, with taps whose guest is a thread. Needs root.
//!
//! Each test has a network namespace of its own, which goes away with the test's threads.
#![allow(missing_docs)]

mod frames;
mod lab;
mod replay;
mod stand_in;
