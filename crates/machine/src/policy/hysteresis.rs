//! A fixed idle time that backs off: a machine that is wanted soon after it slept is left awake for
//! longer next time.
//!
//! The adaptive spin-down of disks (F. Douglis, P. Krishnan, B. Bershad: "Adaptive Disk Spin-Down
//! Policies for Mobile Computers", USENIX MLICS 1995), with doubling and halving.

use std::time::Duration;

use dormouse_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Plan, Policy, Settings, words};

const VERSION: u32 = 1;

/// Doubles its timeout, up to a bound, after a sleep that was shorter than the timeout, and halves
/// it, down to where it began, after one that was longer.
#[derive(Clone, Debug)]
pub struct Hysteresis {
    least: Option<Duration>,
    most: Duration,
    after: Duration,
    idle_since: Option<Timestamp>,
    slept: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Memory {
    version: u32,
    idle_after: Duration,
}

impl Hysteresis {
    /// For a machine in use.
    #[must_use]
    pub fn new(settings: &Settings, memory: Option<&serde_json::Value>) -> Self {
        let least = settings.idle_after;
        let first = least.unwrap_or_default();
        let most = settings.idle_most.max(first);
        let after = memory.and_then(read).map_or(first, |known| known.idle_after);
        Self { least, most, after: after.clamp(first, most), idle_since: None, slept: None }
    }

    pub(super) fn reads(memory: &serde_json::Value) -> bool {
        read(memory).is_some()
    }
}

fn read(memory: &serde_json::Value) -> Option<Memory> {
    Memory::deserialize(memory).ok().filter(|known| known.version == VERSION)
}

impl Policy for Hysteresis {
    fn turned(&mut self, busy: bool, at: Timestamp) {
        if !busy {
            self.idle_since = self.idle_since.or(Some(at));
            return;
        }
        self.idle_since = None;
        if let Some(slept) = self.slept.take() {
            let was_short = at.since(slept) < self.after;
            let next = if was_short { self.after.saturating_mul(2) } else { self.after / 2 };
            self.after = next.clamp(self.least.unwrap_or_default(), self.most);
        }
    }

    fn slept(&mut self, at: Timestamp) {
        self.slept = Some(at);
    }

    fn sleep_at(&self, _now: Timestamp) -> Option<Plan> {
        let (since, least) = self.idle_since.zip(self.least)?;
        let why = if self.after == least {
            format!("sleeps after {} idle", words(self.after))
        } else {
            format!("sleeps after {} idle, for it was wanted soon after its last sleeps", words(self.after))
        };
        Some(Plan { at: since + self.after, why })
    }

    fn wake_at(&self, _now: Timestamp) -> Option<Plan> {
        None
    }

    fn memory(&self) -> Option<serde_json::Value> {
        serde_json::to_value(Memory { version: VERSION, idle_after: self.after }).ok()
    }
}
