//! When to sleep, and when to be awake ahead of need: policies over a machine's use.
//!
//! [`crate::idle`] says from samples whether a machine is in use. A policy sees only the edges, when
//! its use began and ended, and decides from them. It does no I/O and reads no clock, so that the
//! daemon and `dormouse simulate` run the same code.

use std::fmt;

use dormouse_types::Timestamp;

/// Decides for one machine.
pub trait Policy: fmt::Debug + Send {
    /// The machine's use began (`busy`) or ended at `at`; a wake by a packet is a beginning.
    fn turned(&mut self, busy: bool, at: Timestamp);

    /// When an idle machine is to go to sleep, as things are at `now`, and why; `None` if never by
    /// itself, or while it is in use.
    fn sleep_at(&self, now: Timestamp) -> Option<Plan>;

    /// When a sleeper is to be woken before anybody wants it, as things are at `now`, and why.
    fn wake_at(&self, now: Timestamp) -> Option<Plan>;

    /// What it has learned, to be kept over a restart of the daemon.
    fn memory(&self) -> Option<serde_json::Value>;
}

/// What a policy wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When.
    pub at: Timestamp,
    /// Why, in words for the user.
    pub why: String,
}
