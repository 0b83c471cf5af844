//! Spans of the week in local time, as `mon-fri 08:00-19:00`: when a machine stays awake, or may sleep.
//!
//! A span is what the clock on the wall shows. Where clocks are changed it covers each moment at which
//! that clock shows a time of the span: a time that is left out begins or ends it at the change, and of
//! one that comes twice both count, with what is between them.

mod text;

use dormouse_types::Timestamp;
use jiff::{
    civil::{Date, DateTime, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

pub use text::SpanError;

/// Days that are looked at, from yesterday on: a span may have begun then, and within a week each one
/// comes again.
const DAYS: i64 = 10;
/// What lasts longer has no end.
const ALWAYS: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

/// A span that comes each week, on one or more days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The days on which it begins: bit 0 is Monday.
    days: u8,
    /// Minutes of the day, below 1440.
    from: u16,
    /// Minutes of the day, 1 to 1440; if not after `from`, of the next one.
    to: u16,
}

/// Spans of the week; they may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

/// Where a moment is among spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In one of them.
    Inside {
        /// When that and all that adjoin it are over; `None`: never.
        until: Option<Timestamp>,
    },
    /// In none.
    Outside {
        /// When the next one begins; `None` if there are none.
        next: Option<Timestamp>,
    },
}

impl Spans {
    /// As many spans as there may be.
    pub const MAX: usize = 32;

    /// These spans; at most [`Spans::MAX`] of them.
    #[must_use]
    pub fn new(mut spans: Vec<Span>) -> Self {
        spans.truncate(Self::MAX);
        Self(spans)
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where `now` is among them, by the clocks of `zone`.
    #[must_use]
    pub fn at(&self, now: Timestamp, zone: &TimeZone) -> Moment {
        let mut end = None;
        for (from, to) in self.around(now, zone) {
            match end {
                None if from > now => return Moment::Outside { next: Some(from) },
                None if to > now => end = Some(to),
                Some(until) if from <= until => end = Some(to.max(until)),
                _ => {}
            }
        }
        match end {
            None => Moment::Outside { next: None },
            Some(until) => Moment::Inside { until: Some(until).filter(|until| until.since(now) <= ALWAYS) },
        }
    }

    /// What begins from yesterday on, in the order of its beginning.
    fn around(&self, now: Timestamp, zone: &TimeZone) -> Vec<(Timestamp, Timestamp)> {
        let today = civil(now, zone).date();
        let days = (-1..DAYS - 1).filter_map(|day| today.checked_add(jiff::Span::new().days(day)).ok());
        let on = |day| self.0.iter().filter_map(move |span| span.on(day, zone));
        let mut all: Vec<_> = days.flat_map(on).collect();
        all.sort_unstable();
        all
    }
}

impl Span {
    /// The span that begins on `day`, if one does: its first moment, and the first after it.
    fn on(self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if self.days >> monday_is_zero(day.weekday()) & 1 == 0 {
            return None;
        }
        let last = if self.to <= self.from { day.tomorrow().ok()? } else { day };
        let span = (first(at(day, self.from)?, zone)?, after(at(last, self.to)?, zone)?);
        // A day that is left out altogether has none.
        (span.0 < span.1).then_some(span)
    }
}

fn monday_is_zero(day: Weekday) -> u32 {
    u32::try_from(day.to_monday_zero_offset()).unwrap_or_default()
}

/// A minute of a day; that after the last is the next day's first.
fn at(day: Date, minute: u16) -> Option<DateTime> {
    let day = if minute < 1440 { day } else { day.tomorrow().ok()? };
    let minute = i16::try_from(minute % 1440).ok()?;
    Some(day.at(i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?, 0, 0))
}

/// The first moment at which clocks show `time` or later.
fn first(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let reading = zone.to_ambiguous_timestamp(time);
    let earlier = reading.earlier().ok()?;
    match reading.offset() {
        AmbiguousOffset::Gap { .. } => change_after(earlier, zone),
        _ => ours(earlier),
    }
}

/// The last moment at which clocks come to show `time`.
fn after(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let reading = zone.to_ambiguous_timestamp(time);
    match reading.offset() {
        AmbiguousOffset::Gap { .. } => change_after(reading.earlier().ok()?, zone),
        _ => ours(reading.later().ok()?),
    }
}

/// When clocks are set next.
fn change_after(moment: jiff::Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    ours(zone.following(moment).next()?.timestamp())
}

fn ours(moment: jiff::Timestamp) -> Option<Timestamp> {
    u64::try_from(moment.as_nanosecond()).ok().map(Timestamp)
}

/// What the clocks of `zone` show.
fn civil(Timestamp(now): Timestamp, zone: &TimeZone) -> DateTime {
    let moment = jiff::Timestamp::from_nanosecond(now.into()).unwrap_or(jiff::Timestamp::MAX);
    zone.to_datetime(moment)
}

/// A moment as the clocks of `zone` show it, to the minute: `mon 08:00`.
#[must_use]
pub fn shown(moment: Timestamp, zone: &TimeZone) -> String {
    let shown = civil(moment, zone);
    let day = text::DAYS.get(usize::try_from(monday_is_zero(shown.weekday())).unwrap_or_default());
    format!("{} {:02}:{:02}", day.copied().unwrap_or_default(), shown.hour(), shown.minute())
}

#[cfg(test)]
mod tests;
