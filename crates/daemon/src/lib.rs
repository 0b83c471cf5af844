//! The daemon of Dormouse.
#![forbid(unsafe_code)]

pub mod chain;
pub mod clock;
pub mod config;
pub mod events;
pub mod fault;
