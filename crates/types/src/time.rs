//! Instants, given to logic as a parameter.

use core::{
    ops::{Add, Sub},
    time::Duration,
};
use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, as the shell's clock says.
///
/// Differences saturate at zero, so that a clock set back delays what is due and breaks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// The epoch if that is later.
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

/// A span in nanoseconds; saturates after 584 years.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturates() {
        let (second, at) = (Duration::from_secs(1), Timestamp(1));
        assert_eq!((at + second, at - second), (Timestamp(1_000_000_001), Timestamp(0)));
        assert_eq!((at + Duration::MAX, at - Duration::MAX), (Timestamp(u64::MAX), Timestamp(0)));
        assert_eq!((at.since(at + second), (at + second).since(at)), (Duration::ZERO, second));
    }
}
