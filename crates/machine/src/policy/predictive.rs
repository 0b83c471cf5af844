//! Learns how long each machine's idle times are and at which hours its use begins; sleeps at once
//! when that is likely to last, and is awake when it is likely to be wanted.
//!
//! For each five minutes of an idle time it estimates how likely the machine is wanted in them. It
//! is awake in those where a wake that a user waits for, at that likelihood, would cost more
//! ([`Settings::wake_cost`]) than being awake in vain.

use std::time::Duration;

use dormouse_types::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{
    Plan, Policy, Settings,
    ages::{Ages, BIN, BINS, count},
    hours::{CELLS, Hours, Times, local_seconds},
    words,
};

const VERSION: u32 = 1;

/// Bins in a cell of the week.
const BINS_A_CELL: usize = 3;

/// The share of time in use that is remembered fades by 10 % in each bin.
const FADE: f32 = 0.9;

/// The log-odds that an idle time ends in a bin are a sum: of the log-odds of the hazard at its age
/// and of the machine's rate at any age, the logarithm of the age, and the log-odds of the
/// share of time in use of late. Weights by logistic regression over the machines of one day.
const WEIGHTS: Weights = Weights { hazard: 0.073, rate: 0.678, age: 0.172, used: 0.323, bias: -0.198 };

struct Weights {
    hazard: f32,
    rate: f32,
    age: f32,
    used: f32,
    bias: f32,
}

/// Sleeps and wakes by what it has learned of one machine.
#[derive(Clone, Debug)]
pub struct Predictive {
    never: bool,
    idle_least: Duration,
    lead: Duration,
    wake_cost: Duration,
    zone: TimeZone,
    learned: Learned,
    idle_since: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    version: u32,
    ages: Ages,
    hours: Hours,
    used: Used,
}

/// The share of time in use, what was long ago for less.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Used {
    share: f32,
    /// The state was last taken in then.
    at: Option<Timestamp>,
}

/// What is expected of a bin.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    /// How likely the machine is wanted in it.
    chance: f32,
    /// How often it was idle at that hour of the week, and wanted.
    times: Times,
}

impl Predictive {
    /// For a machine in use.
    #[must_use]
    pub fn new(settings: &Settings, zone: TimeZone, memory: Option<&serde_json::Value>) -> Self {
        Self {
            never: settings.idle_after.is_none(),
            idle_least: settings.idle_least,
            lead: settings.lead.min(BIN),
            wake_cost: settings.wake_cost,
            zone,
            learned: memory.and_then(read).unwrap_or_default(),
            idle_since: None,
        }
    }

    pub(super) fn reads(memory: &serde_json::Value) -> bool {
        read(memory).is_some()
    }

    /// What is expected of the bin `age` of the present idle time.
    fn outlook(&self, since: Timestamp, age: usize) -> Outlook {
        let Learned { ages, hours, used, .. } = &self.learned;
        let by_age = if age == 0 {
            ages.hazard(0)
        } else {
            let used = used.after(count(age), false);
            let sum = WEIGHTS.hazard * log_odds(ages.hazard(age))
                + WEIGHTS.rate * log_odds(ages.rate(age))
                + WEIGHTS.age * count(age).ln()
                + WEIGHTS.used * log_odds(used)
                + WEIGHTS.bias;
            let likely = 1.0 / (1.0 + (-sum).exp());
            // Who comes like clockwork is expected so: the machine's own histogram is believed as far as it
            // is beyond chance.
            likely.max(ages.at_least(age))
        };
        // From a bin to a cell and back, as if each of its bins were alike.
        let bins = count(BINS_A_CELL);
        let expected = 1.0 - (1.0 - by_age).powf(bins);
        let at = start(since, age);
        let (chance, times) = hours.chance(local_seconds(at, &self.zone), expected);
        let chance = if times.idle > 0.0 { 1.0 - (1.0 - chance).powf(1.0 / bins) } else { by_age };
        Outlook { chance, times }
    }

    /// Is the machine to be awake in the bin?
    fn guards(&self, outlook: Outlook) -> bool {
        let (cost, bin) = (self.wake_cost.as_secs_f32(), BIN.as_secs_f32());
        outlook.chance * cost >= (1.0 - outlook.chance) * bin
    }

    fn guarded(&self, since: Timestamp, age: usize) -> bool {
        self.guards(self.outlook(since, age))
    }

    /// The first bin to sleep in, from one on.
    ///
    /// After as many that are guarded as the histogram has, it is time to look again.
    fn first_free(&self, since: Timestamp, from: usize) -> usize {
        let mut ages = from..from + BINS;
        ages.find(|age| !self.guarded(since, *age)).unwrap_or(from + BINS)
    }

    fn describe(&self, outlook: Outlook) -> String {
        let percent = (outlook.chance * 100.0).round();
        let Times { idle, begun } = outlook.times;
        if begun >= 1.0 {
            format!("wanted with {percent} % at this hour of the week ({begun:.0} of {idle:.0} times)")
        } else {
            let known = self.learned.ages.count();
            format!("wanted with {percent} % within {}, by {known:.0} idle times", words(BIN))
        }
    }
}

fn read(memory: &serde_json::Value) -> Option<Learned> {
    Learned::deserialize(memory).ok().filter(Learned::is_sane)
}

impl Policy for Predictive {
    fn turned(&mut self, busy: bool, at: Timestamp) {
        let was_idle = self.idle_since;
        if was_idle.is_some() != busy {
            return;
        }
        self.learned.used.take(was_idle.is_none(), at);
        if let Some(since) = was_idle {
            self.learned.ages.add(age(since, at));
            let local = |at| local_seconds(at, &self.zone);
            self.learned.hours.add(local(since), local(at));
            self.idle_since = None;
        } else {
            self.idle_since = Some(at);
        }
    }

    fn sleep_at(&self, now: Timestamp) -> Option<Plan> {
        let since = self.idle_since.filter(|_| !self.never)?;
        let least = since + self.idle_least;
        // What is due was so since its bin began.
        let due = start(since, age(since, now)).max(least);
        let mut at = least.max(now);
        let mut free = self.first_free(since, age(since, at));
        loop {
            at = at.max(start(since, free));
            // Who would be woken at once does not go to sleep.
            let ahead = age(since, at + self.lead);
            if ahead == free || !self.guarded(since, ahead) {
                break;
            }
            free = self.first_free(since, ahead);
        }
        let at = if at <= now { due } else { at };
        let outlook = self.outlook(since, free);
        let (when, what) = (words(at.since(since)), self.describe(outlook));
        Some(Plan { at, why: format!("sleeps after {when} idle: {what}") })
    }

    fn wake_at(&self, now: Timestamp) -> Option<Plan> {
        let since = self.idle_since.filter(|_| !self.never)?;
        let next = age(since, now) + 1;
        let found = (next..BINS).map(|age| (age, self.outlook(since, age))).find(|(_, it)| self.guards(*it));
        // Beyond what the histogram knows, only hours of the week tell something.
        let beyond = next.max(BINS);
        let bins = if self.learned.hours.is_telling() { CELLS * BINS_A_CELL } else { 0 };
        let week = (beyond..beyond + bins).filter(|age| {
            let at = start(since, *age);
            self.learned.hours.tells(local_seconds(at, &self.zone))
        });
        let found = found
            .or_else(|| week.map(|age| (age, self.outlook(since, age))).find(|(_, it)| self.guards(*it)));
        let (age, outlook) = found?;
        let at = start(since, age) - self.lead;
        Some(Plan { at, why: self.describe(outlook) })
    }

    fn memory(&self) -> Option<serde_json::Value> {
        serde_json::to_value(&self.learned).ok()
    }
}

impl Default for Learned {
    fn default() -> Self {
        let used = Used { share: 0.2, at: None };
        Self { version: VERSION, ages: Ages::default(), hours: Hours::default(), used }
    }
}

impl Learned {
    fn is_sane(&self) -> bool {
        self.version == VERSION && (0.0..=1.0).contains(&self.used.share)
    }
}

impl Used {
    /// The machine was in use, or not, until `at`.
    fn take(&mut self, busy: bool, at: Timestamp) {
        if let Some(before) = self.at {
            self.share = self.after(at.since(before).as_secs_f32() / BIN.as_secs_f32(), busy);
        }
        self.at = Some(at);
    }

    /// The share if the machine is in use, or not, for so many bins more.
    fn after(self, bins: f32, busy: bool) -> f32 {
        let now = if busy { 1.0 } else { 0.0 };
        now + (self.share - now) * FADE.powf(bins)
    }
}

/// Whole bins from `since` to `now`.
fn age(since: Timestamp, now: Timestamp) -> usize {
    usize::try_from(now.since(since).as_secs() / BIN.as_secs()).unwrap_or(usize::MAX / 2)
}

/// When the bin of an idle time begins.
fn start(since: Timestamp, age: usize) -> Timestamp {
    since + BIN.saturating_mul(u32::try_from(age).unwrap_or(u32::MAX))
}

fn log_odds(chance: f32) -> f32 {
    let chance = chance.clamp(0.005, 0.995);
    (chance / (1.0 - chance)).ln()
}
