//! The wall clock, given to whatever needs the time so that tests can have their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dormouse_types::Timestamp;

/// Says what time it is.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The host's wall clock: the one clock that goes on while the daemon is down.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(0) + since_epoch
    }
}
