//! Instants as people write them: `7d` ago, `monday`, `2026-11-01`.

use dormouse_types::Timestamp;
use jiff::{ToSpan as _, Zoned, civil::Weekday};

const ALLOWED: &str = "write a span as 12h or 7d, a day as 2026-11-01, monday, today or yesterday, a month as \
                       2026-11, or an instant as 2026-11-01T08:00 or 2026-11-01T08:00:00+01:00";

/// The instant that a text means at `now`, in the zone of `now`.
pub(crate) fn instant(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let found = ago(text, now).or_else(|| day(text, now)).or_else(|| written(text, now));
    let nanos = found.map(|at| at.timestamp().as_nanosecond());
    nanos.and_then(|nanos| u64::try_from(nanos).ok()).map(Timestamp).ok_or_else(|| ALLOWED.into())
}

fn ago(text: &str, now: &Zoned) -> Option<Zoned> {
    let span = humantime::parse_duration(text).ok()?;
    now.checked_sub(jiff::SignedDuration::try_from(span).ok()?).ok()
}

fn day(text: &str, now: &Zoned) -> Option<Zoned> {
    let today = now.start_of_day().ok()?;
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "now" => return Some(now.clone()),
        "today" => return Some(today),
        "yesterday" => return today.checked_sub(1.day()).ok(),
        _ => {}
    }
    let weekdays = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let (_, weekday) = weekdays.into_iter().find(|(name, _)| *name == text || name[..3] == text)?;
    // The last one, which may be today.
    let back = now.weekday().since(weekday);
    today.checked_sub(i64::from(back).days()).ok()
}

fn written(text: &str, now: &Zoned) -> Option<Zoned> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.to_zoned(now.time_zone().clone()));
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    let local = local.or_else(|| format!("{text}-01").parse::<jiff::civil::DateTime>().ok());
    local?.to_zoned(now.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A Saturday, in a zone that had summer time until October.
    fn now() -> Zoned {
        "2026-11-21T16:30:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn reads_what_people_write() {
        for (text, expected) in [
            ("7d", "2026-11-14T16:30:00+01:00"),
            ("1h 30m", "2026-11-21T15:00:00+01:00"),
            ("today", "2026-11-21T00:00:00+01:00"),
            ("Yesterday", "2026-11-20T00:00:00+01:00"),
            ("saturday", "2026-11-21T00:00:00+01:00"),
            ("sunday", "2026-11-15T00:00:00+01:00"),
            ("Mon", "2026-11-16T00:00:00+01:00"),
            ("2026-11", "2026-11-01T00:00:00+01:00"),
            ("2026-07-01", "2026-07-01T00:00:00+02:00"),
            ("2026-11-01T08:00", "2026-11-01T08:00:00+01:00"),
            ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00+00:00"),
        ] {
            let expected = expected.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
            assert_eq!(instant(text, &now()).map(|at| i128::from(at.0)), Ok(expected), "{text}");
        }
        for text in ["", "soon", "2026-13-01", "2026-11-31", "1960-01-01", "mo"] {
            assert!(instant(text, &now()).unwrap_err().contains("7d"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = instant(&text, &now());
        }
    }
}
