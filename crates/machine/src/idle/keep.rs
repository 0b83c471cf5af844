//! What keeps a machine awake whatever its use: unlike a signal it does not restart the clock of
//! `idle_after`, and when it ends a machine that has been idle for long goes to sleep at once.

use std::time::Duration;

use dormouse_types::Timestamp;
use jiff::tz::TimeZone;

use crate::{
    schedule::{Moment, Spans, shown},
    spec::KeepSpec,
};

/// One such reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// As `schedule`, `inhibitor`, `min-awake`.
    pub what: &'static str,
    /// In words for the user.
    pub why: String,
    /// When it ends by itself, if that is known.
    pub until: Option<Timestamp>,
}

/// The schedule of one machine.
#[derive(Clone, Debug)]
pub struct Schedule {
    stay_awake: Spans,
    sleep_only: Spans,
    wake_ahead: Option<Duration>,
    zone: TimeZone,
}

impl Schedule {
    /// A machine's schedule by the clocks of `zone`.
    #[must_use]
    pub fn new(spec: &KeepSpec, zone: TimeZone) -> Self {
        let KeepSpec { stay_awake, sleep_only, wake_ahead, .. } = spec.clone();
        Self { stay_awake, sleep_only, wake_ahead, zone }
    }

    /// What of it keeps the machine awake at `now`.
    #[must_use]
    pub fn keeps(&self, now: Timestamp) -> Vec<Keep> {
        let mut keeps = Vec::new();
        // From the wake ahead on the machine is awake for the span that it was woken for.
        let ahead = now + self.wake_ahead.unwrap_or_default();
        for moment in [now, ahead] {
            if let Moment::Inside { until } = self.stay_awake.at(moment, &self.zone)
                && keeps.is_empty()
            {
                keeps.push(self.keep(format!("stay_awake {}", self.stay_awake), until));
            }
        }
        if let Moment::Outside { next } = self.sleep_only.at(now, &self.zone)
            && !self.sleep_only.is_empty()
        {
            keeps.push(self.keep(format!("sleep_only {}", self.sleep_only), next));
        }
        keeps
    }

    fn keep(&self, rule: String, until: Option<Timestamp>) -> Keep {
        let end = until.map_or_else(String::new, |end| format!(", until {}", shown(end, &self.zone)));
        Keep { what: "schedule", why: format!("{rule}{end}"), until }
    }

    /// When a machine that fell asleep at `asleep` is to be woken ahead, as things are at `now`: for the
    /// first span of `stay_awake` that began after it fell asleep and is not over, or is to come.
    #[must_use]
    pub fn wake_at(&self, asleep: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let ahead = self.wake_ahead?;
        let early = |at: Timestamp| at - ahead;
        // Who was put to sleep during a span, or its lead, sleeps on through it.
        let next = match self.stay_awake.at(asleep + ahead, &self.zone) {
            Moment::Outside { next } => next?,
            Moment::Inside { until } => self.begins_after(until?)?,
        };
        match self.stay_awake.at(next.max(now + ahead), &self.zone) {
            Moment::Inside { .. } if now + ahead <= next => Some(early(next)),
            Moment::Inside { .. } => Some(now),
            Moment::Outside { next } => next.map(early),
        }
    }

    fn begins_after(&self, end: Timestamp) -> Option<Timestamp> {
        match self.stay_awake.at(end, &self.zone) {
            Moment::Outside { next } => next,
            Moment::Inside { .. } => None,
        }
    }

    /// When the machine goes to sleep, if it would at `due` but for `keeps` and the schedule; `None`: that
    /// is not known, for something has no known end.
    #[must_use]
    pub fn outlook(&self, due: Option<Timestamp>, keeps: &[Keep]) -> Option<Timestamp> {
        let mut at = due?;
        for keep in keeps {
            at = at.max(keep.until?);
        }
        // What begins by then keeps awake, too; each end lies within a week.
        for _ in 0..Spans::MAX {
            let Some(keep) = self.keeps(at).into_iter().next() else { return Some(at) };
            at = keep.until.filter(|until| *until > at)?;
        }
        None
    }
}
