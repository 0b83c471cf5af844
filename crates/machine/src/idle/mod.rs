//! When a machine is idle: a pure policy over signals of its use.
//!
//! Some signals are rates (CPU, network, disk) over a window: from the newest sample that is at
//! least a window old to the last one. A signal becomes busy at its threshold and quiet below
//! half of it; between the two it stays as it was, so that noise about the threshold does not
//! count as activity again and again. Before there are two samples every rate counts as busy.
//! Others are open connections, by the rules of the machine's file, and what the guest itself says, by its agent
//! and its balloon driver, and those who look at its screen.
//! The machine is idle while all are quiet; the clock of `idle_after` starts where the use that the
//! last of them showed was over.
//!
//! What keeps it awake whatever its use is a [`Keep`].
//!
//! The rates start afresh when it cannot be known what happened between two samples: a counter went
//! backwards (the process was started again), the clock was set back, or nobody looked for
//! [`MAX_GAP`].

mod balloon;
mod connections;
mod guest;
mod keep;
mod rates;
mod viewers;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use dormouse_types::Timestamp;

pub use balloon::Faults;
pub use connections::Connection;
pub use guest::{GuestWord, STALE};
pub use keep::{Keep, Schedule};

use self::{balloon::Balloon, connections::Connections, guest::Guest, rates::Rates, viewers::Viewers};
use crate::spec::SleepSpec;

/// The window, unless `idle_after` is so short that half of it is less.
pub const WINDOW: Duration = Duration::from_secs(10);

/// After so long without a sample the rates start afresh.
pub const MAX_GAP: Duration = Duration::from_secs(300);

/// Counters of a machine, which only grow while its process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When they were read.
    pub at: Timestamp,
    /// CPU time of all virtual processors.
    pub cpu: Duration,
    /// Bytes sent and received, without broadcast noise.
    pub network_bytes: u64,
    /// Bytes read and written on disks.
    pub disk_bytes: u64,
}

/// Something that idleness is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// As `cpu`, `network`, `disk`, `connections tcp:22`, `users`, `load`, `faults`, `viewers`.
    pub name: Cow<'static, str>,
    /// Unit of value and threshold: as `%` (of one processor), `B/s`, `open`.
    pub unit: &'static str,
    /// What was measured; zero of a rate before there are two samples, `None` if nobody knows.
    pub value: Option<f64>,
    /// At and above this the signal becomes busy; below half of it, quiet. `None`: it is told, and keeps
    /// nobody awake.
    pub threshold: Option<f64>,
    /// Does it keep the machine awake?
    pub busy: bool,
    /// Since when it is busy; if it is quiet, when the use that it shows was over.
    pub since: Timestamp,
    /// If it is busy and nothing happens: when it becomes quiet, and since when it counts as quiet then.
    pub ends: Option<(Timestamp, Timestamp)>,
    /// More of it, in words.
    pub detail: Option<String>,
}

/// What the policy makes of what it was told so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The last sample's time.
    pub at: Timestamp,
    /// What it was judged by.
    pub signals: Vec<Signal>,
    /// Since when all signals are quiet.
    pub idle_since: Option<Timestamp>,
    /// When the machine is to sleep if it stays idle.
    pub due: Option<Timestamp>,
    /// The same, also of a machine that is not idle, but will be if nothing happens.
    pub expected: Option<Timestamp>,
}

/// Judges one machine while its guest runs.
#[derive(Clone, Debug)]
pub struct IdlePolicy {
    idle_after: Option<Duration>,
    rates: Rates,
    connections: Connections,
    guest: Guest,
    balloon: Balloon,
    viewers: Viewers,
}

impl IdlePolicy {
    /// A policy by the thresholds and rules of a machine's file.
    #[must_use]
    pub fn new(spec: &SleepSpec) -> Self {
        Self {
            idle_after: spec.idle_after,
            rates: Rates::new(spec),
            connections: Connections::new(&spec.keep.connections),
            guest: Guest::new(&spec.keep),
            balloon: Balloon::new(&spec.keep),
            viewers: Viewers::new(&spec.keep),
        }
    }

    /// Forgets what it was told: the machine woke, or did something that the counters do not tell.
    pub fn reset(&mut self) {
        self.rates.reset();
        self.connections.reset();
        self.guest.reset();
        self.balloon.reset();
        self.viewers.reset();
    }

    /// Takes in the connections that there are at `now`, and those that were closed a moment before.
    pub fn connections(&mut self, all: &[Connection], now: Timestamp) {
        self.connections.take(all, now);
    }

    /// Is the guest to be asked? See [`IdlePolicy::guest`].
    #[must_use]
    pub const fn asks_guest(&self) -> bool {
        self.guest.is_asked()
    }

    /// Takes in the guest's word; `None` if it did not give any.
    pub fn guest(&mut self, word: Option<GuestWord>, now: Timestamp) {
        self.guest.take(word, now);
    }

    /// Is the guest's balloon driver to be asked? See [`IdlePolicy::faults`].
    #[must_use]
    pub const fn asks_balloon(&self) -> bool {
        self.balloon.is_asked()
    }

    /// Takes in the word of the guest's balloon driver; `None` if it did not give any.
    pub fn faults(&mut self, faults: Option<Faults>, now: Timestamp) {
        self.balloon.take(faults, now);
    }

    /// Takes in how many look at the machine's screen; `None` if nobody knows.
    pub fn viewers(&mut self, count: Option<u32>, now: Timestamp) {
        self.viewers.take(count, now);
    }

    /// Takes in the counters and judges.
    pub fn sample(&mut self, sample: Sample) -> Verdict {
        self.rates.take(sample);
        self.verdict(sample.at)
    }

    fn verdict(&self, at: Timestamp) -> Verdict {
        let told = self.balloon.signal().into_iter().chain(self.viewers.signal());
        let others = self.connections.signals().iter().chain(self.guest.signals()).chain(told);
        let signals: Vec<_> = self.rates.signals().chain(others.cloned()).collect();
        let judged = || signals.iter().filter(|signal| signal.threshold.is_some());
        let quiet = judged().all(|signal| !signal.busy);
        let idle_since = judged().map(|signal| signal.since).max().filter(|_| quiet);
        let due = idle_since.zip(self.idle_after).map(|(since, span)| since + span);
        let expected = self.idle_after.and_then(|span| expected(judged(), span));
        Verdict { at, signals, idle_since, due, expected }
    }
}

/// When a machine is to sleep if nothing happens.
fn expected<'a>(signals: impl Iterator<Item = &'a Signal>, idle_after: Duration) -> Option<Timestamp> {
    let each = signals.map(|signal| match signal.ends {
        Some((end, used)) if signal.busy => Some(end.max(used + idle_after)),
        _ => Some(signal.since + idle_after).filter(|_| !signal.busy),
    });
    each.collect::<Option<Vec<_>>>()?.into_iter().max()
}

impl Signal {
    /// One of which only this is known.
    fn new(name: impl Into<Cow<'static, str>>, unit: &'static str, busy: bool, since: Timestamp) -> Self {
        Self { name: name.into(), unit, value: None, threshold: None, busy, since, ends: None, detail: None }
    }
}

impl Verdict {
    /// Is the machine to sleep at `now`?
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// The verdict in a line, for the log and `dormouse why`.
    #[must_use]
    pub fn explain(&self) -> String {
        let age = |since| in_words(self.at.since(since));
        match (self.idle_since, self.due) {
            (Some(since), Some(due)) => {
                format!("idle for {}; sleeps after {}", age(since), in_words(due.since(since)))
            }
            (Some(since), None) => format!("idle for {}; sleeps only when told", age(since)),
            (None, _) => {
                let busy = self.signals.iter().filter(|signal| signal.busy);
                let busy: Vec<_> = busy.map(|signal| format!("{signal} for {}", age(signal.since))).collect();
                format!("busy: {}", busy.join("; "))
            }
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, value, threshold, .. } = self;
        match value {
            Some(value) => write!(f, "{name} {value:.1} {unit}")?,
            None => write!(f, "{name} unknown")?,
        }
        threshold.map_or(Ok(()), |threshold| write!(f, " (idle below {:.1})", threshold / 2.0))
    }
}

/// To the second, which is what a person reads.
fn in_words(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

#[cfg(test)]
mod tests;
