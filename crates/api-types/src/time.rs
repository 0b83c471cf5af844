//! Instants as people and programs read them.

use core::{fmt, str::FromStr, time::Duration};
use std::time::{SystemTime, UNIX_EPOCH};

use dormouse_types::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

/// An instant: an RFC 3339 text in UTC with milliseconds, as `2026-11-21T07:19:51.042Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T07:19:51.042Z")]
pub struct Time(Timestamp);

/// Why a text is no instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeError(String);

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an instant: write it as RFC 3339 says, as 2026-11-21T07:19:51.042Z", self.0)
    }
}

impl std::error::Error for TimeError {}

/// The last instant that RFC 3339 can write with a year of four digits, in milliseconds.
const LAST_MS: u64 = 253_402_300_799_999;

/// A span in whole milliseconds, as fields named `_ms` carry it; saturates.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Time {
    /// The instant, exact to the millisecond.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }

    fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis((self.0.0 / 1_000_000).min(LAST_MS))
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(Timestamp(at.0 / 1_000_000 * 1_000_000))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.system()).fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let error = || TimeError(text.into());
        let at = humantime::parse_rfc3339(text).map_err(|_| error())?;
        let nanos = at.duration_since(UNIX_EPOCH).map_err(|_| error())?.as_nanos();
        Ok(Timestamp(u64::try_from(nanos).map_err(|_| error())?).into())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_written_as_rfc_3339() {
        assert_eq!(Time::from(Timestamp(1_795_245_591_042_999_999)).to_string(), "2026-11-21T07:19:51.042Z");
        assert!("yesterday".parse::<Time>().is_err());
        assert!("1969-12-31T23:59:59Z".parse::<Time>().is_err());
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(nanos: u64) {
            let time = Time::from(Timestamp(nanos));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<Time>();
        }
    }
}
