//! Which sleepers have a process that stands by for their wake: a pure policy under a budget.
//!
//! A standby costs memory and makes a wake some ten times faster, so that it is worth most for who is woken
//! often and lately. Each machine has a score: one for each wake, halved every [`HALF_LIFE`]. Those
//! with the highest scores have standbys, as many as the budget holds; a sleeper without one takes the
//! place of another only when its score is [`MARGIN`] times as high, so that two equals do not
//! take turns. Standbys are started one at a time, and none while a machine is on its way, or while
//! the host is short of memory, in which case they are given up one by one.

use std::{collections::BTreeMap, time::Duration};

use dormouse_types::{MachineName, Timestamp};

/// In which time a wake counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(3600);
/// How much more a sleeper must be worth than one whose place it takes.
pub const MARGIN: f64 = 1.5;
/// After the host was short of memory, no standby is started for so long.
pub const CALM: Duration = Duration::from_secs(60);
/// After a standby failed it is tried again, at first and at most, doubling between.
pub const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Bytes that a standby is taken to need as long as none was seen.
const GUESS: u64 = 48 << 20;

/// A machine as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: MachineName,
    /// Since when it has slept saved, with nothing else going on; `None` if it does not.
    pub asleep_since: Option<Timestamp>,
    /// When it was last woken.
    pub last_wake: Option<Timestamp>,
    /// Bytes that its standby occupies, if it has one.
    pub standby: Option<u64>,
}

/// How the host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// A machine is on its way to run or to sleep, and has priority.
    pub busy: bool,
    /// Memory is short.
    pub tight: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start a standby for this machine.
    Warm(MachineName),
    /// End that of this machine.
    Cool(MachineName),
}

/// What is known of a machine.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    score: f64,
    /// When `score` was right.
    at: Timestamp,
    last_wake: Option<Timestamp>,
    asleep_since: Option<Timestamp>,
    /// The look in which it was last seen.
    seen: u64,
    /// It should have a standby.
    has: bool,
    failures: u32,
    not_before: Timestamp,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct Standbys {
    /// Bytes that all standbys may occupy together.
    budget: u64,
    /// How long a machine must have slept.
    after: Duration,
    marks: BTreeMap<MachineName, Mark>,
    /// So many times it was looked at all machines.
    looks: u64,
    /// Bytes that the next one is taken to need.
    estimate: u64,
    last_tight: Option<Timestamp>,
}

impl Standbys {
    /// A policy that has seen nothing.
    #[must_use]
    pub const fn new(budget: u64, after: Duration) -> Self {
        Self { budget, after, marks: BTreeMap::new(), looks: 0, estimate: GUESS, last_tight: None }
    }

    /// Looks at all machines; says what to do, if anything is. Ask again when it is done.
    pub fn next(&mut self, machines: &[Seen], host: Host, now: Timestamp) -> Option<Step> {
        self.look(machines, now);
        if host.tight {
            self.last_tight = Some(now);
        }
        let used = machines.iter().filter_map(|m| m.standby).fold(0, u64::saturating_add);
        let least = self.least(machines, now);
        if host.tight || used > self.budget {
            return least.map(|(name, _)| self.cool(name));
        }
        let calm = self.last_tight.is_none_or(|tight| now.since(tight) >= CALM);
        if host.busy || !calm || self.budget == 0 {
            return None;
        }
        let (best, worth) = self.best(machines, now)?;
        if used.saturating_add(self.estimate) <= self.budget {
            if let Some(mark) = self.marks.get_mut(best) {
                mark.has = true;
            }
            return Some(Step::Warm(best.clone()));
        }
        let (loser, less) = least?;
        // Only for who will fit then.
        let freed = machines.iter().find(|m| m.name == *loser).and_then(|m| m.standby).unwrap_or(0);
        let fits = used.saturating_sub(freed).saturating_add(self.estimate) <= self.budget;
        (fits && worth > less * MARGIN).then(|| self.cool(loser))
    }

    /// A standby could not be started, or there was nothing to start.
    pub fn failed(&mut self, name: &MachineName, now: Timestamp) {
        if let Some(mark) = self.marks.get_mut(name) {
            mark.fail(now);
        }
    }

    fn cool(&mut self, name: &MachineName) -> Step {
        if let Some(mark) = self.marks.get_mut(name) {
            mark.has = false;
        }
        Step::Cool(name.clone())
    }

    fn look(&mut self, machines: &[Seen], now: Timestamp) {
        self.looks += 1;
        for seen in machines {
            let mark = match self.marks.get_mut(&seen.name) {
                Some(mark) => mark,
                None => self.marks.entry(seen.name.clone()).or_default(),
            };
            mark.look(seen, now);
            mark.seen = self.looks;
        }
        self.marks.retain(|_, mark| mark.seen == self.looks);
        if let Some(largest) = machines.iter().filter_map(|m| m.standby).max() {
            self.estimate = largest;
        }
    }

    /// The sleeper without a standby that is worth most.
    fn best<'a>(&self, machines: &'a [Seen], now: Timestamp) -> Option<(&'a MachineName, f64)> {
        let slept = |m: &Seen| m.asleep_since.is_some_and(|since| now.since(since) >= self.after);
        let may = |m: &Seen| self.marks.get(&m.name).is_some_and(|mark| mark.not_before <= now);
        let wanting = machines.iter().filter(|m| m.standby.is_none() && slept(m) && may(m));
        wanting
            .map(|m| (m, self.worth(m, now)))
            .max_by(|(a, x), (b, y)| x.total_cmp(y).then(a.asleep_since.cmp(&b.asleep_since)))
            .map(|(m, worth)| (&m.name, worth))
    }

    /// The standby that is worth least.
    fn least<'a>(&self, machines: &'a [Seen], now: Timestamp) -> Option<(&'a MachineName, f64)> {
        let standing_by = machines.iter().filter(|m| m.standby.is_some());
        standing_by
            .map(|m| (m, self.worth(m, now)))
            .min_by(|(a, x), (b, y)| x.total_cmp(y).then(a.asleep_since.cmp(&b.asleep_since)))
            .map(|(m, worth)| (&m.name, worth))
    }

    fn worth(&self, machine: &Seen, now: Timestamp) -> f64 {
        self.marks.get(&machine.name).map_or(0.0, |mark| mark.worth(now))
    }
}

impl Mark {
    fn look(&mut self, seen: &Seen, now: Timestamp) {
        if let Some(wake) = seen.last_wake.filter(|wake| self.last_wake != Some(*wake)) {
            // The newest of what is known, should the clock have been set back.
            let at = wake.max(self.at);
            (self.score, self.at) = (self.worth(at) + 1.0, at);
            self.last_wake = Some(wake);
        }
        if self.asleep_since != seen.asleep_since {
            *self =
                Self { asleep_since: seen.asleep_since, has: false, failures: 0, not_before: now, ..*self };
        }
        if self.has && seen.standby.is_none() {
            // It ended by itself, as by the kernel for want of memory.
            self.fail(now);
        }
        self.has = seen.standby.is_some();
    }

    fn fail(&mut self, now: Timestamp) {
        let (first, most) = RETRY;
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
        (self.has, self.failures, self.not_before) = (false, self.failures.saturating_add(1), now + wait);
    }

    fn worth(&self, now: Timestamp) -> f64 {
        self.score * (-now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const AFTER: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(1_000_000 + seconds)
    }

    fn name(name: &str) -> MachineName {
        name.parse().unwrap()
    }

    fn sleeper(n: &str, since: u64, last_wake: Option<u64>, standby: Option<u64>) -> Seen {
        Seen { name: name(n), asleep_since: Some(at(since)), last_wake: last_wake.map(at), standby }
    }

    fn policy(mib: u64) -> Standbys {
        Standbys::new(mib * MIB, AFTER)
    }

    const CALM_HOST: Host = Host { busy: false, tight: false };

    #[test]
    fn the_one_that_was_woken_last_comes_first_and_not_before_its_time() {
        let mut policy = policy(256);
        let machines = [sleeper("a", 10, Some(1), None), sleeper("b", 11, Some(5), None)];
        assert_eq!(policy.next(&machines, CALM_HOST, at(12)), None);
        assert_eq!(policy.next(&machines, CALM_HOST, at(13)), Some(Step::Warm(name("a"))));
        assert_eq!(policy.next(&machines, Host { busy: true, tight: false }, at(14)), None);
    }

    #[test]
    fn the_one_that_is_woken_often_comes_before_the_one_that_was_woken_last() {
        let mut policy = policy(256);
        for wake in [10, 60, 110] {
            policy.next(
                &[sleeper("often", wake, Some(wake), None)],
                Host { busy: true, tight: false },
                at(wake),
            );
        }
        let machines = [sleeper("often", 120, Some(110), None), sleeper("lately", 130, Some(129), None)];
        assert_eq!(policy.next(&machines, CALM_HOST, at(140)), Some(Step::Warm(name("often"))));
        let machines = [sleeper("often", 120, Some(110), Some(MIB)), sleeper("lately", 130, Some(129), None)];
        assert_eq!(policy.next(&machines, CALM_HOST, at(141)), Some(Step::Warm(name("lately"))));
    }

    #[test]
    fn the_budget_holds_and_places_change_hands_only_for_much_more() {
        let full = |old: u64, other: u64| {
            [
                sleeper("old", 5, Some(1), Some(old * MIB)),
                sleeper("new", 8, Some(4), None),
                sleeper("unwoken", 8, None, Some(other * MIB)),
            ]
        };
        // Where it fits it is started; where not, who is never woken makes room.
        assert_eq!(policy(90).next(&full(29, 29), CALM_HOST, at(30)), Some(Step::Warm(name("new"))));
        let instead = Some(Step::Cool(name("unwoken")));
        assert_eq!(policy(60).next(&full(29, 29), CALM_HOST, at(30)), instead);
        assert_eq!(policy(60).next(&full(40, 29), CALM_HOST, at(30)), instead, "over the budget");
        assert_eq!(policy(60).next(&full(40, 19), CALM_HOST, at(30)), None, "it would not fit even then");
        let equals = [sleeper("old", 5, Some(1), Some(58 * MIB)), sleeper("new", 8, Some(4), None)];
        assert_eq!(policy(60).next(&equals, CALM_HOST, at(32)), None);
    }

    #[test]
    fn none_is_kept_where_memory_is_short_or_none_is_allowed() {
        let mut policy = policy(256);
        let machines = [sleeper("a", 0, Some(1), Some(30 * MIB)), sleeper("b", 0, Some(2), None)];
        let tight = Host { busy: true, tight: true };
        assert_eq!(policy.next(&machines, tight, at(10)), Some(Step::Cool(name("a"))));
        let machines = machines.map(|m| Seen { standby: None, ..m });
        assert_eq!(policy.next(&machines, CALM_HOST, at(10 + CALM.as_secs() - 1)), None);
        assert_eq!(policy.next(&machines, CALM_HOST, at(10 + CALM.as_secs())), Some(Step::Warm(name("b"))));
        let mut none = Standbys::new(0, AFTER);
        let left = [sleeper("a", 0, None, Some(MIB))];
        assert_eq!(none.next(&left, CALM_HOST, at(10)), Some(Step::Cool(name("a"))));
        assert_eq!(none.next(&machines, CALM_HOST, at(20)), None);
    }

    #[test]
    fn what_fails_or_ends_by_itself_is_tried_again_later_and_after_the_next_sleep_at_once() {
        let mut policy = policy(256);
        let without = [sleeper("a", 0, None, None)];
        assert_eq!(policy.next(&without, CALM_HOST, at(10)), Some(Step::Warm(name("a"))));
        policy.failed(&name("a"), at(10));
        assert_eq!(policy.next(&without, CALM_HOST, at(39)), None);
        assert_eq!(policy.next(&without, CALM_HOST, at(40)), Some(Step::Warm(name("a"))));
        assert_eq!(policy.next(&[sleeper("a", 0, None, Some(MIB))], CALM_HOST, at(41)), None);
        // The second time it takes twice as long.
        assert_eq!(policy.next(&without, CALM_HOST, at(50)), None);
        assert_eq!(policy.next(&without, CALM_HOST, at(109)), None);
        assert_eq!(policy.next(&without, CALM_HOST, at(110)), Some(Step::Warm(name("a"))));
        policy.failed(&name("a"), at(110));
        assert_eq!(
            policy.next(&[sleeper("a", 111, None, None)], CALM_HOST, at(115)),
            Some(Step::Warm(name("a")))
        );
    }

    proptest! {
        /// Whatever happens, what is started was believed to fit, and nothing is ended without a reason.
        #[test]
        fn the_policy_keeps_its_budget(
            budget in 0_u64..300,
            rounds in proptest::collection::vec((0_usize..6, 0_u64..4, 1_u64..60, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let mut policy = policy(budget);
            let mut machines: Vec<Seen> =
                (0..6).map(|n| sleeper(&format!("m{n}"), 0, None, None)).collect();
            let mut now = 10;
            for (n, what, mib, busy, tight) in rounds {
                now += 7;
                match what {
                    0 => machines[n].last_wake = Some(at(now)),
                    1 => (machines[n].asleep_since, machines[n].standby) = (Some(at(now)), None),
                    2 => (machines[n].asleep_since, machines[n].standby) = (None, None),
                    _ => machines[n].standby = None,
                }
                let used = |machines: &[Seen]| machines.iter().filter_map(|m| m.standby).sum::<u64>();
                let before = used(&machines);
                match policy.next(&machines, Host { busy, tight }, at(now)) {
                    Some(Step::Warm(name)) => {
                        let m = machines.iter_mut().find(|m| m.name == name).unwrap();
                        prop_assert!(!busy && !tight && m.standby.is_none() && m.asleep_since.is_some());
                        prop_assert!(before < budget * MIB);
                        m.standby = Some(mib * MIB);
                    }
                    Some(Step::Cool(name)) => {
                        let m = machines.iter_mut().find(|m| m.name == name).unwrap();
                        prop_assert!(m.standby.is_some());
                        m.standby = None;
                    }
                    None => prop_assert!(before <= budget * MIB),
                }
            }
        }
    }
}
