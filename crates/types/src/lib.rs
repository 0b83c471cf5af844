//! Words that every crate of Dormouse shares.
//!
//! Nothing here does I/O, and nothing depends on a platform, a network or a store.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod depth;
mod mac;
mod name;
mod time;
mod wake;

pub use depth::Depth;
pub use mac::{MacAddr, MacError};
pub use name::{MachineName, NameError};
pub use time::Timestamp;
pub use wake::{WakeRule, WakeRuleError};
