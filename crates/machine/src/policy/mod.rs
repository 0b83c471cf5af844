//! When to sleep, and when to be awake ahead of need: policies over a machine's use.
//!
//! [`crate::idle`] says from samples whether a machine is in use. A policy sees only the edges, when
//! its use began and ended, and decides from them. It does no I/O and reads no clock, so that the
//! daemon and `dormouse simulate` run the same code.
//!
//! ```text
//!  turned, slept ──► Policy ──► sleep_at   a plan, good until the next edge
//!                      │  └───► wake_at    a plan, good until the next edge
//!                      └──────► memory     what is kept over a restart
//! ```

mod ages;
mod fixed;
mod hours;
mod hysteresis;
mod predictive;

use std::{fmt, str::FromStr, time::Duration};

use dormouse_types::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use fixed::Fixed;
pub use hysteresis::Hysteresis;
pub use predictive::Predictive;

/// Decides for one machine.
pub trait Policy: fmt::Debug + Send + Sync {
    /// The machine's use began (`busy`) or ended at `at`; a wake by a packet is a beginning. Said
    /// again, it changes nothing.
    fn turned(&mut self, busy: bool, at: Timestamp);

    /// The machine, which is idle, went to sleep at `at`.
    fn slept(&mut self, at: Timestamp) {
        let _ = at;
    }

    /// When an idle machine is to go to sleep, as things are at `now`, and why; `None` if never by
    /// itself, or while it is in use.
    fn sleep_at(&self, now: Timestamp) -> Option<Plan>;

    /// When a sleeper is to be woken before anybody wants it, as things are at `now`, and why.
    fn wake_at(&self, now: Timestamp) -> Option<Plan>;

    /// What it has learned, to be kept over a restart of the daemon.
    fn memory(&self) -> Option<serde_json::Value>;
}

/// What a policy wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When; what is past is due.
    pub at: Timestamp,
    /// Why, in words for the user.
    pub why: String,
}

/// The policies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Fixed`]
    #[default]
    Fixed,
    /// [`Hysteresis`]
    Hysteresis,
    /// [`Predictive`]
    Predictive,
}

impl Kind {
    /// All of them, the simplest first.
    pub const ALL: [Self; 3] = [Self::Fixed, Self::Hysteresis, Self::Predictive];

    /// As it is written in a machine file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Hysteresis => "hysteresis",
            Self::Predictive => "predictive",
        }
    }
}

impl Kind {
    /// Is this a memory of such a policy, in a form that it knows?
    #[must_use]
    pub fn reads(self, memory: &serde_json::Value) -> bool {
        match self {
            Self::Fixed => true,
            Self::Hysteresis => Hysteresis::reads(memory),
            Self::Predictive => Predictive::reads(memory),
        }
    }

    /// The parameters that it heeds; all heed that `idle_after` is `never`.
    #[must_use]
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Fixed => &["idle_after"],
            Self::Hysteresis => &["idle_after", "idle_most"],
            Self::Predictive => &["wake_cost", "lead", "idle_least"],
        }
    }

    /// Why a parameter has no place in a table of this policy in a file, and what to do, if so.
    #[must_use]
    pub fn refuses(self, key: &str) -> Option<String> {
        match key {
            "idle_after" => Some("is not said here; write it in [sleep] of a machine's file".into()),
            _ if self.keys().contains(&key) => None,
            _ => Some(format!("is of no use to the policy {self}; remove it")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| "must be \"fixed\", \"hysteresis\" or \"predictive\"".into())
    }
}

/// Which policy, with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which.
    pub kind: Kind,
    /// `fixed`: sleep after so much idle time. `hysteresis`: never sooner. `None`: never by itself,
    /// whichever policy.
    pub idle_after: Option<Duration>,
    /// `hysteresis`: never later.
    pub idle_most: Duration,
    /// `predictive`: a wake that a user waits for is worth so much time awake in vain.
    pub wake_cost: Duration,
    /// `predictive`: how long before the machine may be needed it is woken.
    pub lead: Duration,
    /// `predictive`: never sleep sooner.
    pub idle_least: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: Kind::Fixed,
            idle_after: Some(Duration::from_secs(15 * 60)),
            idle_most: Duration::from_secs(2 * 3600),
            wake_cost: Duration::from_secs(20 * 60),
            lead: Duration::from_secs(30),
            idle_least: Duration::from_secs(10),
        }
    }
}

/// No time in a parameter is longer, so that sums of times do not overflow.
const MOST: Duration = Duration::from_secs(366 * 86_400);

/// Reads the value of a parameter, wherever it is written; `None` is `never`, which only `idle_after` can be.
///
/// # Errors
/// What may be written.
pub fn parameter(key: &str, value: &str) -> Result<Option<Duration>, String> {
    let (least, most, allowed) = match key {
        "idle_after" if value == "never" => return Ok(None),
        "idle_after" => (Duration::from_secs(1), MOST, "from 1s to a year"),
        // What is planned is planned bin by bin.
        "lead" => (Duration::ZERO, ages::BIN, "of at most 5m"),
        _ => (Duration::ZERO, MOST, "of at most a year"),
    };
    let span = humantime::parse_duration(value).ok().filter(|span| (least..=most).contains(span));
    let never = if key == "idle_after" { ", or \"never\"" } else { "" };
    span.map(Some).ok_or_else(|| {
        format!("must be a time {allowed} with its unit, as \"20s\", \"3m\" or \"1m 30s\"{never}")
    })
}

impl Settings {
    /// Parameters by their names, in the order of what they are about.
    pub const KEYS: [&str; 5] = ["idle_after", "idle_most", "wake_cost", "lead", "idle_least"];

    /// Changes one parameter, as `idle_after` to `10m` or, of this one alone, `never`.
    ///
    /// # Errors
    /// What may be written.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let place = match key {
            "idle_after" => {
                self.idle_after = parameter(key, value).map_err(|fix| format!("{key} = {value:?}: {fix}"))?;
                return Ok(());
            }
            "idle_most" => &mut self.idle_most,
            "wake_cost" => &mut self.wake_cost,
            "lead" => &mut self.lead,
            "idle_least" => &mut self.idle_least,
            _ => return Err(format!("{key:?} is no parameter; there are {}", Self::KEYS.join(", "))),
        };
        let span = parameter(key, value).map_err(|fix| format!("{key} = {value:?}: {fix}"))?;
        *place = span.unwrap_or(*place);
        Ok(())
    }

    /// The policy, with what it learned before; its hours are those of `zone`. A memory that it
    /// [cannot read](Kind::reads) is passed over.
    #[must_use]
    pub fn build(&self, zone: TimeZone, memory: Option<&serde_json::Value>) -> Box<dyn Policy> {
        match self.kind {
            Kind::Fixed => Box::new(Fixed::new(self.idle_after)),
            Kind::Hysteresis => Box::new(Hysteresis::new(self, memory)),
            Kind::Predictive => Box::new(Predictive::new(self, zone, memory)),
        }
    }
}

/// A span as a person reads it, to the second.
fn words(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

#[cfg(test)]
mod tests;
