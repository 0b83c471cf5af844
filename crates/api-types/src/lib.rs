//! Requests and answers of Dormouse's HTTP API, version 1.
//!
//! Served over a unix socket as JSON. Instants are RFC 3339 texts in UTC; numbers carry their
//! unit in their name (`_bytes`, `_ms`). Within a version, fields and words are only added: a
//! client takes what it knows and passes over the rest; the server refuses what it does not
//! know in a request, so that a misspelt key never goes unnoticed.
#![forbid(unsafe_code)]

mod command;
mod doctor;
mod event;
mod import;
mod machine;
mod problem;
pub mod routes;
mod time;
mod usage;
mod wake_test;
mod why;

pub use command::{
    HoldRequest, HoldWhileRequest, Outcome, ReleaseRequest, Remove, SleepRequest, StartRequest, StopRequest,
    Wait, WakeRequest,
};
pub use doctor::{Check, CheckStatus, Report, VersionInfo};
pub use event::{Event, EventKind, EventsQuery};
pub use import::{ImportQuery, ImportReport, ImportRequest, ImportStatus, ImportedDomain, SleepObstacle};
pub use machine::{
    Abilities, CreateMachine, DepthWord, Failure, Hold, Interface, MachineDetail, MachineState,
    MachineSummary,
};
pub use problem::{Problem, ProblemKind};
pub use time::{Time, TimeError, millis};
pub use usage::{EnergyModel, Usage, UsageLine, UsageQuery, UsageReport};
pub use wake_test::{WakeTest, WakeTestRequest, WakeVerdict};
pub use why::{AwakeBudget, Held, Ignored, Keep, LastWake, MakesRoom, NeedsRoom, Service, Signal, Why};

/// The socket where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dormouse/dormoused.sock";
