//! The clocks, given to whatever needs the time so that tests can have their own.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use dormouse_types::Timestamp;

/// Says what time it is.
pub trait Clock: Send + Sync {
    /// Now, by the wall clock, which may be set.
    fn now(&self) -> Timestamp;

    /// Now, by a clock that is never set, from whatever beginning: for spans, while the daemon lives.
    fn steady(&self) -> Duration;
}

/// From here the steady clock counts.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The host's clocks. The wall clock is the one that goes on while the daemon is down.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        dormouse_platform::now()
    }

    fn steady(&self) -> Duration {
        BEGAN.elapsed()
    }
}
