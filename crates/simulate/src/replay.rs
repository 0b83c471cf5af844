//! One machine's trace, and what each policy makes of it.
//!
//! The trace says how much a machine did in an interval, and not when in it. Therefore:
//! - A value holds for the whole of its interval: use begins and ends at the beginning of one.
//! - A **user hit** is a use that begins while the machine is not awake: asleep, or on the way there or back.
//! - Where use begins at the very instant for which something is planned, use comes first: a sleep is not
//!   entered, and a wake is too late.
//! - What a machine takes to sleep and to wake, it is not asleep.
//! - That a use has ended is noticed [`NOTICE`] later, which is what the daemon needs; nobody sleeps sooner.
//! - Who is woken ahead of need is awake from then to the end of the first interval that begins after it: waking
//!   for the instant at which intervals meet is not a way to be there when a use begins.

use std::time::Duration;

use dormouse_machine::{
    idle::WINDOW,
    policy::{Plan, Policy},
};
use dormouse_types::Timestamp;

use crate::{Options, Tally};

/// How long after it has ended a use is noticed to have ended.
pub(crate) const NOTICE: Duration = WINDOW;

/// What happened to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It went to sleep.
    Slept,
    /// It was woken ahead of need.
    WokenAhead,
    /// It was woken, for its use began.
    Hit,
    /// Its use began while it was awake.
    Used,
    /// Its use ended.
    Idle,
}

/// Something that happened, under the policy of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Counted from zero.
    pub policy: usize,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// One machine under one policy.
#[derive(Debug)]
struct Run {
    policy: Box<dyn Policy>,
    asleep: bool,
    /// Woken ahead, and not used since.
    ahead: bool,
    /// Not to sleep before.
    barred: Timestamp,
    /// The transition that was last begun is over.
    settled: Timestamp,
    /// When the policy is asked again: what it plans is good until then, or the next edge.
    planned: Option<Timestamp>,
    tally: Tally,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
struct Takes {
    interval: Duration,
    sleep: Duration,
    wake: Duration,
}

/// A machine under all policies.
#[derive(Debug)]
pub struct Replay {
    cpu_below: f64,
    takes: Takes,
    counts_from: Timestamp,
    now: Timestamp,
    busy: bool,
    first: bool,
    is_new: bool,
    runs: Vec<Run>,
    recorded: Option<Vec<Move>>,
}

impl Replay {
    /// A machine that is in use, whose first value begins at `now`.
    #[must_use]
    pub fn new(options: &Options, now: Timestamp) -> Self {
        let run = |(_, settings): &(String, dormouse_machine::policy::Settings)| Run {
            policy: settings.build(options.zone.clone(), None),
            asleep: false,
            ahead: false,
            barred: now,
            settled: now,
            planned: None,
            tally: Tally::default(),
        };
        Self {
            cpu_below: options.cpu_below,
            takes: Takes { interval: options.interval, sleep: options.sleep_takes, wake: options.wake_takes },
            counts_from: now + options.warm_up,
            now,
            busy: true,
            first: true,
            is_new: true,
            runs: options.policies.iter().map(run).collect(),
            recorded: None,
        }
    }

    /// Goes on at `at` with a later day. What was between is not counted.
    pub fn resume(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    /// Keeps what happens from now on.
    pub fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// What was kept.
    pub fn recorded(&mut self) -> Vec<Move> {
        self.recorded.take().unwrap_or_default()
    }

    /// Has nothing been replayed yet?
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// When the next value begins.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The tallies since they were last taken.
    pub fn take_tallies(&mut self) -> impl Iterator<Item = Tally> {
        self.runs.iter_mut().map(|run| std::mem::take(&mut run.tally))
    }

    /// The next interval, of so many percent of a processor.
    pub fn step(&mut self, value: f64) {
        let busy = value >= if self.busy { self.cpu_below / 2.0 } else { self.cpu_below };
        let turned = busy != self.busy || self.first;
        let (from, until) = (self.now, self.now + self.takes.interval);
        let counts = from >= self.counts_from;
        let takes = self.takes;
        for (number, run) in self.runs.iter_mut().enumerate() {
            let mut tell = |at, what| {
                if let Some(moves) = &mut self.recorded {
                    moves.push(Move { policy: number, at, what });
                }
            };
            if turned {
                run.turn(busy, from, counts && !self.first, &mut tell);
            }
            let idle = if busy { Duration::ZERO } else { takes.interval };
            let asleep =
                if busy { Duration::ZERO } else { run.rest([from, until], takes, counts, &mut tell) };
            if counts {
                run.tally.total += takes.interval;
                run.tally.idle += idle;
                run.tally.asleep += asleep;
            }
        }
        self.busy = busy;
        self.first = false;
        self.is_new = false;
        self.now = until;
    }
}

impl Run {
    fn turn(&mut self, busy: bool, at: Timestamp, counts: bool, tell: &mut impl FnMut(Timestamp, What)) {
        self.policy.turned(busy, at);
        self.planned = None;
        if busy {
            // It may be on its way to sleep, or from it.
            let hit = std::mem::take(&mut self.asleep) || at < self.settled;
            (self.ahead, self.settled) = (false, at);
            if counts {
                self.tally.uses += 1;
                self.tally.hits += u64::from(hit);
            }
            tell(at, if hit { What::Hit } else { What::Used });
        } else {
            self.barred = self.barred.max(at + NOTICE);
            tell(at, What::Idle);
        }
    }

    /// An idle interval; returns how much of it was slept.
    fn rest(
        &mut self,
        [from, until]: [Timestamp; 2],
        takes: Takes,
        counts: bool,
        tell: &mut impl FnMut(Timestamp, What),
    ) -> Duration {
        let mut now = from;
        if !self.asleep {
            let Some(at) = self.plan(|policy, at| policy.sleep_at(at), now.max(self.barred)) else {
                return Duration::ZERO;
            };
            if at >= until {
                return Duration::ZERO;
            }
            self.policy.slept(at);
            self.asleep = true;
            self.planned = None;
            let vain = std::mem::take(&mut self.ahead);
            if counts {
                self.tally.sleeps += 1;
                self.tally.vain += u64::from(vain);
            }
            tell(at, What::Slept);
            (now, self.settled) = (at, at + takes.sleep);
        }
        let wake = self.plan(|policy, at| policy.wake_at(at), now).filter(|at| *at < until);
        if let Some(at) = wake {
            self.asleep = false;
            self.ahead = true;
            self.planned = None;
            self.barred = until + if at > from { takes.interval } else { Duration::ZERO };
            self.tally.ahead += u64::from(counts);
            tell(at, What::WokenAhead);
        }
        let asleep = wake.unwrap_or(until).since(now.max(self.settled));
        if let Some(at) = wake {
            // What has not fallen asleep yet does so before it wakes.
            self.settled = self.settled.max(at) + takes.wake;
            self.barred = self.barred.max(self.settled);
        }
        asleep
    }

    /// What the policy plans, asked at `now` unless it was asked since the last edge.
    fn plan(
        &mut self,
        ask: impl FnOnce(&dyn Policy, Timestamp) -> Option<Plan>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let never = Timestamp(u64::MAX);
        let plan = || ask(&*self.policy, now).map_or(never, |plan| plan.at);
        let at = self.planned.filter(|at| *at > now).unwrap_or_else(plan).max(now);
        self.planned = Some(at);
        Some(at).filter(|at| *at != never)
    }
}
