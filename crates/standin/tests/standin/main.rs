//! The stand-in against smoltcp as its client, over a simulated link.
#![allow(clippy::unwrap_used, reason = "a test")]

mod limits;
mod raw;
mod talks;
mod world;
