//! The daemon of Dormouse.
//!
//! ```text
//! main ── config ── service: registry, surrogate, platforms, API, put together and taken apart
//!                     │
//!         api ──────► host ──────► driver, one task per machine ──► registry, platform, surrogate
//!        (HTTP)   who is there     (the only one that changes it)
//!                     │
//!                  doctor, events
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod chain;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod driver;
pub mod events;
pub mod fault;
pub mod host;
mod import;
pub mod inhibit;
pub mod meters;
pub mod platforms;
pub mod presence;
mod pressure;
pub mod room;
pub mod service;
pub mod watchdog;
