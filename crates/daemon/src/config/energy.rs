//! How long usage is kept, and what energy is estimated by.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{Rule, Span};

const DAY: Duration = Duration::from_secs(86_400);

/// How long it is kept what machines used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metering {
    /// Hour by hour.
    pub hourly: Span,
    /// At all: day by day, when it is older.
    pub keep: Span,
}

/// The model of energy: see [`dormouse_machine::meter::Energy`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Energy {
    /// Watts of a GiB of memory.
    pub memory_watts: f64,
    /// Watts of the idle host for each of its processors.
    pub idle_watts: f64,
    /// Watts that a busy processor draws more.
    pub busy_watts: f64,
}

impl Default for Metering {
    fn default() -> Self {
        Self { hourly: Span::new(90 * DAY), keep: Span::new(400 * DAY) }
    }
}

impl Default for Energy {
    /// Those of Cloud Carbon Footprint's methodology: SPECpower's servers as Amazon uses them, 0.74 W idle and
    /// 3.5 W busy for each hardware thread; memory by the makers' words.
    fn default() -> Self {
        Self { memory_watts: 0.392, idle_watts: 0.74, busy_watts: 2.76 }
    }
}

impl Metering {
    pub(super) fn rules(&self) -> [Rule; 2] {
        let years = 3653 * DAY;
        let Self { hourly, keep } = *self;
        let allowed = "write a time from 2d to 10 years, as 90d";
        [
            Rule::new("metering.hourly", hourly, (2 * DAY..=years).contains(&hourly.get()), allowed),
            Rule::new(
                "metering.keep",
                keep,
                (hourly.get()..=years).contains(&keep.get()),
                "write a time of at least metering.hourly and at most 10 years",
            ),
        ]
    }
}

impl Energy {
    pub(super) fn rules(&self) -> [Rule; 3] {
        let watts = |key, watts: f64| {
            Rule::new(key, watts, (0.0..=1000.0).contains(&watts), "write watts from 0 to 1000")
        };
        [
            watts("energy.memory_watts", self.memory_watts),
            watts("energy.idle_watts", self.idle_watts),
            watts("energy.busy_watts", self.busy_watts),
        ]
    }
}
