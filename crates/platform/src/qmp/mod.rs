//! A client of QMP, the protocol of QEMU's monitor.
//!
//! Source: QEMU `docs/interop/qmp-spec.txt`. The schema is open: events, error classes and run
//! states that this version does not know are kept as data, so that a newer QEMU works as well.
//! Commands may be queued before QEMU has greeted, even before its process exists.

mod client;
mod lines;
mod message;

pub use client::{Client, Error, Pending};
pub use lines::{LineTooLong, Lines};
pub use message::{Event, Message, Refusal};
