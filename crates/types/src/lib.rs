//! Words that every crate of Dormouse shares.
//!
//! Nothing here does I/O, and nothing depends on a platform, a network or a store.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod depth;
mod lease;
mod mac;
mod matcher;
mod name;
mod ports;
mod rate;
mod service;
mod text;
mod time;
mod wake;

pub use depth::Depth;
pub use lease::LeasePolicy;
pub use mac::{MacAddr, MacError};
pub use matcher::{Matcher, MatcherError, What};
pub use name::{MachineName, NameError};
pub use ports::{Ports, PortsError};
pub use rate::{Rate, RateError};
pub use service::{Service, ServiceKind};
pub use time::{Timestamp, nanos};
pub use wake::{WakeRule, WakeRuleError};
