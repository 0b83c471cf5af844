//! Machines, their life, and the policies that put them to sleep and wake them.
//!
//! Nothing here does I/O: a state machine takes `(event, now)` and returns actions, which the
//! daemon carries out.
#![forbid(unsafe_code)]

pub mod budget;
pub mod hold;
pub mod idle;
pub mod lifecycle;
pub mod meter;
pub mod policy;
pub mod schedule;
pub mod spec;
pub mod standby;
