//! How often something must happen before it counts.

use alloc::string::{String, ToString};
use core::{fmt, str::FromStr, time::Duration};

/// At least `count` times within `within`. Written as `3/10s`; units are `ms`, `s`, `m` and `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u16,
    within: Duration,
}

/// A text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rate: write how many (1 to {most}) in which time (1ms to 24h), as 3/10s",
    most = Rate::MAX_COUNT
)]
pub struct RateError(String);

impl Rate {
    /// The largest count: each of them is remembered.
    pub const MAX_COUNT: u16 = 1000;
    const MAX_WITHIN: Duration = Duration::from_secs(24 * 3600);

    /// A rate; `None` unless `count` is 1 to [`Rate::MAX_COUNT`] and `within` whole milliseconds, from
    /// one to a day.
    #[must_use]
    pub fn new(count: u16, within: Duration) -> Option<Self> {
        let is_span = within.subsec_nanos().is_multiple_of(1_000_000)
            && !within.is_zero()
            && within <= Self::MAX_WITHIN;
        ((1..=Self::MAX_COUNT).contains(&count) && is_span).then_some(Self { count, within })
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.count
    }

    /// In which time.
    #[must_use]
    pub const fn within(self) -> Duration {
        self.within
    }
}

/// Units and their milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let read = || {
            let (count, span) = text.split_once('/')?;
            let digits = span.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = span.split_at(digits);
            let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
            let millis = crate::text::number::<u64>(number)?.checked_mul(millis)?;
            Self::new(crate::text::number(count)?, Duration::from_millis(millis))
        };
        read().ok_or_else(|| RateError(text.to_string()))
    }
}

/// In the largest unit that leaves a whole number.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX);
        let (name, unit) = UNITS.into_iter().find(|(_, unit)| millis % unit == 0).unwrap_or(("ms", 1));
        write!(f, "{}/{}{name}", self.count, millis / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_counts_and_times() {
        let rate = |count, millis| Ok(Rate::new(count, Duration::from_millis(millis)).unwrap());
        assert_eq!("3/10s".parse(), rate(3, 10_000));
        assert_eq!("2/500ms".parse(), rate(2, 500));
        assert_eq!("1000/24h".parse(), rate(1000, 86_400_000));
        assert_eq!("5/120s".parse::<Rate>().unwrap().to_string(), "5/2m");
    }

    #[test]
    fn errors_say_what_is_allowed() {
        for text in
            ["", "3", "3/", "/10s", "3/10", "0/1s", "1001/1s", "3/0s", "3/25h", "3/s", "+3/1s", "3/1 s"]
        {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("1 to 1000") && error.contains("as 3/10s"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(count in 1..=Rate::MAX_COUNT, millis in 1..=86_400_000u64) {
            let rate = Rate::new(count, Duration::from_millis(millis)).unwrap();
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn any_text_is_a_rate_or_an_error(text in "\\PC*", like in "[0-9]{0,4}/[0-9]{0,20}[a-z]{0,2}") {
            let _ = text.parse::<Rate>();
            if let Ok(rate) = like.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }
    }
}
