//! Which sleepers have a process that stands by for their wake: a pure policy under a budget.
//!
//! A standby costs memory and makes a wake some ten times faster, so that it is worth most for who is woken
//! often and lately. Each machine has a score: one for each wake, halved every [`HALF_LIFE`]. Those
//! with the highest scores have standbys, as many as the budget holds; a sleeper without one takes the
//! place of others only when its score is [`MARGIN`] times as high, so that two equals do not
//! take turns. What a standby needs is known of a machine that had one lately, and else taken to be as much as
//! those need on average. Standbys are started one at a time, and none while a machine is on its way, or while
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
/// How long it is believed what a standby needed when it was last seen.
pub const BELIEVED: Duration = Duration::from_secs(3600);
/// Bytes that a standby is taken to need as long as none was seen that the budget holds.
const GUESS: u64 = 48 << 20;

/// A machine as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: MachineName,
    /// Since when it has slept saved, with nothing else going on; `None` if it does not.
    pub asleep_since: Option<Timestamp>,
    /// When it was last woken.
    pub last_wake: Option<Timestamp>,
    /// Bytes that its standby occupies, if it has one.
    pub standby: Option<u64>,
    /// One is being started.
    pub starting: bool,
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
    /// It is left as it is until then.
    not_before: Timestamp,
    /// Bytes that its standby occupied when it last had one, and when that was.
    size: Option<(u64, Timestamp)>,
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
    /// Bytes that one is taken to need of which nothing is known.
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
    pub fn next(&mut self, machines: &[Machine], host: Host, now: Timestamp) -> Option<Step> {
        self.look(machines, now);
        if host.tight {
            self.last_tight = Some(now);
        }
        let used = machines.iter().filter_map(|m| m.standby).fold(0, u64::saturating_add);
        if host.tight || used > self.budget {
            // One that is too large by itself goes first, for the others may fit without it.
            let too_large = self.standing_by(machines, now).find(|m| m.standby > Some(self.budget));
            return too_large.or_else(|| self.least(machines, now)).map(|m| self.cool(&m.name));
        }
        let calm = self.last_tight.is_none_or(|tight| now.since(tight) >= CALM);
        if host.busy || !calm || self.budget == 0 || machines.iter().any(|m| m.starting) {
            return None;
        }
        let best = self.best(machines, now, self.budget)?;
        let room = self.budget.saturating_sub(used);
        let (need, worth) = (self.need(best), self.worth(best, now));
        if need <= room {
            return Some(self.warm(&best.name));
        }
        let much_less = |m: &&Machine| worth > self.worth(m, now) * MARGIN;
        let freed = self.standing_by(machines, now).filter(much_less).filter_map(|m| m.standby);
        // Only for who will fit then.
        if need <= freed.fold(room, u64::saturating_add) {
            return self.least(machines, now).map(|m| self.cool(&m.name));
        }
        self.best(machines, now, room).map(|m| self.warm(&m.name))
    }

    /// Does one stand by, as of the last look?
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.marks.values().any(|mark| mark.has)
    }

    /// A standby could not be started, or there was nothing to start, or it could not be ended.
    pub fn failed(&mut self, name: &MachineName, now: Timestamp) {
        if let Some(mark) = self.marks.get_mut(name) {
            mark.fail(now);
        }
    }

    fn warm(&mut self, name: &MachineName) -> Step {
        if let Some(mark) = self.marks.get_mut(name) {
            mark.has = true;
        }
        Step::Warm(name.clone())
    }

    fn cool(&mut self, name: &MachineName) -> Step {
        if let Some(mark) = self.marks.get_mut(name) {
            mark.has = false;
        }
        Step::Cool(name.clone())
    }

    fn look(&mut self, machines: &[Machine], now: Timestamp) {
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
        let known = self.marks.values().filter_map(|mark| mark.size.map(|(bytes, _)| bytes));
        let (count, sum) = known
            .filter(|bytes| *bytes <= self.budget)
            .fold((0_u64, 0_u64), |(count, sum), bytes| (count + 1, sum.saturating_add(bytes)));
        self.estimate = sum.checked_div(count).unwrap_or(GUESS.min(self.budget));
    }

    /// Bytes that its standby is taken to need.
    fn need(&self, machine: &Machine) -> u64 {
        let known = self.marks.get(&machine.name).and_then(|mark| mark.size);
        known.map_or(self.estimate, |(bytes, _)| bytes)
    }

    /// The sleeper without a standby that is worth most, of those that need no more than `room`.
    fn best<'a>(&self, machines: &'a [Machine], now: Timestamp, room: u64) -> Option<&'a Machine> {
        let slept = |m: &Machine| m.asleep_since.is_some_and(|since| now.since(since) >= self.after);
        let wanting = machines.iter().filter(|m| m.standby.is_none() && !m.starting && slept(m));
        wanting
            .filter(|m| self.may(m, now) && self.need(m) <= room)
            .map(|m| (m, self.worth(m, now)))
            .max_by(|(a, x), (b, y)| x.total_cmp(y).then(a.asleep_since.cmp(&b.asleep_since)))
            .map(|(m, _)| m)
    }

    /// Those that have a standby, which can be ended as far as is known.
    fn standing_by<'a>(&self, machines: &'a [Machine], now: Timestamp) -> impl Iterator<Item = &'a Machine> {
        machines.iter().filter(move |m| m.standby.is_some() && self.may(m, now))
    }

    /// The standby that is worth least.
    fn least<'a>(&self, machines: &'a [Machine], now: Timestamp) -> Option<&'a Machine> {
        self.standing_by(machines, now)
            .map(|m| (m, self.worth(m, now)))
            .min_by(|(a, x), (b, y)| x.total_cmp(y).then(a.asleep_since.cmp(&b.asleep_since)))
            .map(|(m, _)| m)
    }

    fn may(&self, machine: &Machine, now: Timestamp) -> bool {
        self.marks.get(&machine.name).is_some_and(|mark| mark.not_before <= now)
    }

    fn worth(&self, machine: &Machine, now: Timestamp) -> f64 {
        self.marks.get(&machine.name).map_or(0.0, |mark| mark.worth(now))
    }
}

impl Mark {
    fn look(&mut self, seen: &Machine, now: Timestamp) {
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
        match seen.standby {
            Some(bytes) => self.size = Some((bytes, now)),
            None => self.size = self.size.filter(|(_, at)| now.since(*at) < BELIEVED),
        }
        if seen.starting {
            return;
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

    fn sleeper(n: &str, since: u64, last_wake: Option<u64>, standby: Option<u64>) -> Machine {
        Machine {
            name: name(n),
            asleep_since: Some(at(since)),
            last_wake: last_wake.map(at),
            standby,
            starting: false,
        }
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
        let machines = machines.map(|m| Machine { standby: None, ..m });
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

    const BUSY: Host = Host { busy: true, tight: false };

    #[test]
    fn one_that_is_larger_than_the_budget_keeps_no_other_from_having_one() {
        let mut policy = policy(100);
        let machines =
            |large, small| [sleeper("large", 0, Some(9), large), sleeper("small", 0, Some(1), small)];
        assert_eq!(policy.next(&machines(None, None), CALM_HOST, at(10)), Some(Step::Warm(name("large"))));
        let large = machines(Some(101 * MIB), None);
        assert_eq!(policy.next(&large, CALM_HOST, at(11)), Some(Step::Cool(name("large"))));
        // What is known of one says nothing of the other.
        assert_eq!(policy.next(&machines(None, None), CALM_HOST, at(12)), Some(Step::Warm(name("small"))));
        assert_eq!(policy.next(&machines(None, Some(MIB)), CALM_HOST, at(13)), None);
        // It is given up before the others, whatever it is worth.
        let both = machines(Some(101 * MIB), Some(MIB));
        assert_eq!(
            Standbys::new(100 * MIB, AFTER).next(&both, CALM_HOST, at(14)),
            Some(Step::Cool(name("large")))
        );
        let later = at(11 + BELIEVED.as_secs());
        assert_eq!(
            policy.next(&machines(None, Some(MIB)), CALM_HOST, later),
            Some(Step::Warm(name("large")))
        );
    }

    #[test]
    fn one_that_cannot_be_ended_keeps_no_other_from_being_ended() {
        let mut policy = policy(256);
        let machines = [sleeper("a", 0, Some(1), Some(MIB)), sleeper("b", 0, Some(2), Some(MIB))];
        let tight = Host { busy: false, tight: true };
        assert_eq!(policy.next(&machines, tight, at(10)), Some(Step::Cool(name("a"))));
        policy.failed(&name("a"), at(10));
        assert_eq!(policy.next(&machines, tight, at(11)), Some(Step::Cool(name("b"))));
        policy.failed(&name("b"), at(11));
        assert_eq!(policy.next(&machines, tight, at(39)), None);
        assert_eq!(policy.next(&machines, tight, at(40)), Some(Step::Cool(name("a"))));
    }

    #[test]
    fn while_one_starts_others_are_given_up_and_none_is_started() {
        let mut policy = policy(256);
        let starting = Machine { starting: true, ..sleeper("a", 0, Some(2), None) };
        let machines = [starting, sleeper("b", 0, Some(1), Some(MIB)), sleeper("c", 0, Some(1), None)];
        assert_eq!(policy.next(&machines[..1], CALM_HOST, at(10)), None);
        assert_eq!(policy.next(&machines, CALM_HOST, at(11)), None);
        let tight = Host { busy: true, tight: true };
        assert_eq!(policy.next(&machines, tight, at(12)), Some(Step::Cool(name("b"))));
    }

    proptest! {
        /// Whatever happens, what is started was believed to fit, and nothing is ended without a reason.
        #[test]
        fn the_policy_keeps_its_budget(
            budget in 0_u64..300,
            rounds in proptest::collection::vec((0_usize..6, 0_u64..4, 1_u64..60, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let mut policy = policy(budget);
            let mut machines: Vec<Machine> =
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
                let used = |machines: &[Machine]| machines.iter().filter_map(|m| m.standby).sum::<u64>();
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

        /// However large they are, and whichever cannot be ended for a while: left alone, the policy comes
        /// to rest within its budget, and has a standby if any fits.
        #[test]
        fn the_policy_comes_to_rest_with_what_fits(
            budget in 1_u64..300,
            sizes in proptest::collection::vec(1_u64..400, 1..8),
            wakes in proptest::collection::vec((0_usize..8, 0_u64..600), 0..20),
            stuck in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let mut policy = policy(budget);
            let mut machines: Vec<Machine> =
                (0..sizes.len()).map(|n| sleeper(&format!("m{n}"), 0, None, None)).collect();
            for (n, wake) in wakes {
                let n = n % machines.len();
                machines[n].last_wake = Some(at(wake));
                policy.next(&machines, BUSY, at(600));
            }
            let step = |policy: &mut Standbys, machines: &mut Vec<Machine>, now, stuck: &[bool]| {
                let step = policy.next(machines, CALM_HOST, now)?;
                let (Step::Warm(name) | Step::Cool(name)) = &step;
                let n = machines.iter().position(|m| m.name == *name).unwrap();
                match step {
                    Step::Warm(_) => machines[n].standby = Some(sizes[n] * MIB),
                    Step::Cool(_) if stuck[n] => policy.failed(name, now),
                    Step::Cool(_) => machines[n].standby = None,
                }
                Some(())
            };
            let bound = 20 * sizes.len();
            let rests = |policy: &mut Standbys, machines: &mut Vec<Machine>, now, stuck: &[bool]| {
                (0..bound).any(|_| step(policy, machines, now, stuck).is_none())
            };
            prop_assert!(rests(&mut policy, &mut machines, at(700), &stuck), "{machines:?}");
            let later = at(700 + RETRY.1.as_secs());
            prop_assert!(rests(&mut policy, &mut machines, later, &[false; 8]), "{machines:?}");
            let used = machines.iter().filter_map(|m| m.standby).sum::<u64>();
            prop_assert!(used <= budget * MIB);
            prop_assert_eq!(used > 0, sizes.iter().any(|size| *size <= budget));
        }
    }
}
