//! Spans of the week as they are written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Span, Spans};

/// The days as they are written, Monday first.
pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 1440;
const ALL_DAYS: u8 = 0x7f;
/// Days that have a name together.
const NAMED: [(&str, u8); 2] = [("weekdays", 0b001_1111), ("weekend", 0b110_0000)];

/// Why a text is no span of the week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// It has neither days nor times, or something else.
    #[error("{0:?} is not days and times: write as \"mon-fri 08:00-19:00\", \"sat,sun\" or \"22:00-06:00\"")]
    Unknown(String),
    /// A day is none.
    #[error(
        "{0:?} is not a day of the week: write mon, tue, wed, thu, fri, sat or sun, as mon-fri or sat,sun, or \
         weekdays or weekend"
    )]
    Day(String),
    /// A time is none.
    #[error("{0:?} is not a time of the day: write hours and minutes from 00:00 to 24:00, as 08:00-19:00")]
    Time(String),
    /// It begins when it ends.
    #[error("{0:?} begins when it ends: write 00:00-24:00 for the whole day")]
    Empty(String),
}

impl FromStr for Span {
    type Err = SpanError;

    /// `DAYS`, `TIMES` or `DAYS TIMES`: days as `mon-fri`, `sat,sun`, `weekdays` (Monday to Friday) or
    /// `weekend`, times as `08:00-19:00`. As in systemd.time(7), `..` may stand for `-`, days may be written out,
    /// and case does not matter.
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let lower = text.to_ascii_lowercase().replace("..", "-");
        let words: Vec<_> = lower.split_ascii_whitespace().collect();
        let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let (days, times) = match *words {
            [times] if is_time(times) => (None, Some(times)),
            [days] => (Some(days), None),
            [days, times] if is_time(times) => (Some(days), Some(times)),
            _ => return Err(SpanError::Unknown(text.into())),
        };
        let days = days.map_or(Ok(ALL_DAYS), self::days)?;
        let (from, to) = times.map_or(Ok((0, DAY)), self::times)?;
        Ok(Self { days, from, to })
    }
}

fn days(list: &str) -> Result<u8, SpanError> {
    let mut days = 0;
    for part in list.split(',') {
        if let Some((_, named)) = NAMED.iter().find(|(name, _)| *name == part) {
            days |= named;
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // fri-mon goes over the end of the week.
        let count = (last + 7 - first) % 7 + 1;
        days |= (first..first + count).fold(0, |all, day| all | 1 << (day % 7));
    }
    Ok(days)
}

fn day(word: &str) -> Result<u8, SpanError> {
    const WHOLE: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let at = DAYS.iter().zip(WHOLE).position(|(short, whole)| word == *short || word == whole);
    at.and_then(|at| u8::try_from(at).ok()).ok_or_else(|| SpanError::Day(word.into()))
}

fn times(range: &str) -> Result<(u16, u16), SpanError> {
    let (from, to) = range.split_once('-').ok_or_else(|| SpanError::Time(range.into()))?;
    let (begin, end) = (time(from)?, time(to)?);
    match (begin, end) {
        (DAY, _) => Err(SpanError::Time(from.into())),
        // Midnight as an end is that of the day's end.
        (0, 0) => Err(SpanError::Empty(range.into())),
        (begin, 0) => Ok((begin, DAY)),
        (begin, end) if begin == end => Err(SpanError::Empty(range.into())),
        both => Ok(both),
    }
}

fn time(text: &str) -> Result<u16, SpanError> {
    let read = || {
        let (hours, minutes) = text.split_once(':')?;
        let number = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
            let is_number = lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| part.parse::<u16>().ok()).flatten()
        };
        let (hours, minutes) = (number(hours, 1..=2)?, number(minutes, 2..=2)?);
        (minutes < 60).then_some(hours * 60 + minutes).filter(|all| *all <= DAY)
    };
    read().ok_or_else(|| SpanError::Time(text.into()))
}

/// As it is read: runs of three days or more as a range.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |day: usize| self.days >> day & 1 == 1;
        let mut day = 0;
        let mut words = Vec::new();
        while let Some(first) = DAYS.get(day).filter(|_| self.days != ALL_DAYS) {
            let run = (day..7).take_while(|day| has(*day)).count();
            match DAYS.get(day + run.saturating_sub(1)) {
                Some(last) if run >= 3 => words.push(format!("{first}-{last}")),
                _ => words.extend(DAYS.iter().skip(day).take(run).map(ToString::to_string)),
            }
            day += run.max(1);
        }
        let whole = (self.from, self.to) == (0, DAY);
        f.write_str(&words.join(","))?;
        if whole && !words.is_empty() {
            return Ok(());
        }
        let blank = if words.is_empty() { "" } else { " " };
        let [a, b, c, d] = [self.from / 60, self.from % 60, self.to / 60, self.to % 60];
        write!(f, "{blank}{a:02}:{b:02}-{c:02}:{d:02}")
    }
}

impl Serialize for Spans {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Spans {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let spans = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        spans.map(Self::new).map_err(de::Error::custom)
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&spans.join("; "))
    }
}
