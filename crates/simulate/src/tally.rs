//! What a policy came to, beside the best possible and always-on.

use std::time::Duration;

use serde::Serialize;

/// Times and events of one policy, over some machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that was replayed and counted.
    pub total: Duration,
    /// Of it, not in use.
    pub idle: Duration,
    /// Of that, asleep.
    pub asleep: Duration,
    /// Sleeps that were entered.
    pub sleeps: u64,
    /// Uses that began: at each a machine is either awake or hits a user.
    pub uses: u64,
    /// Of them, those at which the machine was asleep.
    pub hits: u64,
    /// Wakes ahead of need.
    pub ahead: u64,
    /// Of them, those after which the machine slept again unused.
    pub vain: u64,
}

impl Tally {
    /// Takes in another's.
    pub fn add(&mut self, other: Self) {
        self.total += other.total;
        self.idle += other.idle;
        self.asleep += other.asleep;
        self.sleeps += other.sleeps;
        self.uses += other.uses;
        self.hits += other.hits;
        self.ahead += other.ahead;
        self.vain += other.vain;
    }
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which policy.
    pub policy: String,
    /// Hours asleep, of all machines together.
    pub asleep_hours: f64,
    /// Share of the oracle's hours asleep, in percent; 100 where there is nothing to sleep.
    pub of_oracle_percent: f64,
    /// All wakes.
    pub wakes: u64,
    /// Uses that began while the machine was asleep: somebody waited for its wake.
    pub user_hits: u64,
    /// Wakes ahead of need.
    pub ahead: u64,
    /// Of them, those that nobody used.
    pub ahead_in_vain: u64,
    /// Hours awake and not in use.
    pub wasted_hours: f64,
}

/// Tallies of all policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    machines: u64,
    tallies: Vec<(String, Tally)>,
}

impl Report {
    pub(crate) fn new(policies: impl Iterator<Item = String>) -> Self {
        Self { machines: 0, tallies: policies.map(|policy| (policy, Tally::default())).collect() }
    }

    /// A line of the trace came to these, in the order of the policies.
    pub(crate) fn add(&mut self, tallies: impl Iterator<Item = Tally>) {
        self.machines += 1;
        for ((_, sum), tally) in self.tallies.iter_mut().zip(tallies) {
            sum.add(tally);
        }
    }

    /// Lines that were replayed: machines, or days of machines where there were several files.
    #[must_use]
    pub const fn machines(&self) -> u64 {
        self.machines
    }

    /// Hours replayed and counted, of all machines.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.tallies.first().map_or(0.0, |(_, tally)| hours(tally.total))
    }

    /// Uses that began.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.tallies.first().map_or(0, |(_, tally)| tally.uses)
    }

    /// The oracle, each policy, and always-on.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let any = self.tallies.first().map(|(_, tally)| *tally).unwrap_or_default();
        let oracle = Tally { asleep: any.idle, sleeps: any.uses, ahead: any.uses, ..any };
        let oracle = Tally { hits: 0, vain: 0, ..oracle };
        let always_on = Tally { asleep: Duration::ZERO, sleeps: 0, hits: 0, ahead: 0, vain: 0, ..any };
        let first = [row("oracle", &oracle)];
        let policies = self.tallies.iter().map(|(policy, tally)| row(policy, tally));
        first.into_iter().chain(policies).chain([row("always-on", &always_on)]).collect()
    }
}

fn row(policy: &str, tally: &Tally) -> Row {
    let Tally { idle, asleep, hits, ahead, vain, .. } = *tally;
    let share = if idle.is_zero() { 1.0 } else { asleep.as_secs_f64() / idle.as_secs_f64() };
    Row {
        policy: policy.into(),
        asleep_hours: hours(asleep),
        of_oracle_percent: share * 100.0,
        wakes: hits + ahead,
        user_hits: hits,
        ahead,
        ahead_in_vain: vain,
        wasted_hours: hours(idle.saturating_sub(asleep)),
    }
}

fn hours(span: Duration) -> f64 {
    span.as_secs_f64() / 3600.0
}
