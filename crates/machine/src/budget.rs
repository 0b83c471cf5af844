//! Budgets of awake memory: who is put to sleep so that others may be awake, a pure policy.
//!
//! A budget bounds the memory that the guests of awake machines see together, on the host or of one owner. What
//! a machine counts is what it may use, not what it occupies at the moment, so that nothing changes under a
//! machine that is left alone. One whose sleep leaves its memory where it is goes on counting while it sleeps so.
//!
//! When more is awake than a budget allows, or is about to be, those that have been idle longest go to sleep first,
//! until it is kept. Never one that is in use, held, or awake for less than its least time; if that is not enough
//! nobody is put to sleep in vain, but for a budget that is exceeded already, which is brought as near to its bound
//! as can be.

use std::collections::BTreeMap;

use dormouse_types::{Depth, MachineName, Timestamp};

use crate::spec::{MachineSpec, PlatformSpec};

/// The budgets of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes of all machines together.
    pub host: Option<u64>,
    /// Bytes of all machines of an owner.
    pub owners: BTreeMap<String, u64>,
}

/// A machine as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: MachineName,
    /// Whose it is.
    pub owner: Option<String>,
    /// Bytes that its guest sees.
    pub memory: u64,
    /// How it counts.
    pub use_: Use,
}

/// How a machine counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Asleep or stopped, its memory given back: not at all.
    Away,
    /// On its way there: no longer, for what it gives back is given back very soon.
    Leaving,
    /// It has its memory, or is about to have it, and is to be left alone.
    Busy,
    /// It has its memory, is idle or asleep since then, and may be put where it gives it back.
    Idle(Timestamp),
}

/// Does a machine give its memory back when it sleeps so deep? One that keeps its process does only if its memory
/// is paged out.
#[must_use]
pub const fn gives_back(platform: &PlatformSpec, depth: Depth) -> bool {
    !depth.keeps_process() || platform.pages_out()
}

/// How deep a machine sleeps to make room: as it would anyway or, where that gives nothing back, saved, if its file
/// lets it come to that with time. `None` if it sleeps only when it is told to, or never gives its memory back.
#[must_use]
pub fn room_depth(spec: &MachineSpec) -> Option<Depth> {
    let sleep = &spec.sleep;
    sleep.idle_after?;
    let usual = Some(sleep.depth).filter(|depth| gives_back(&spec.platform, *depth));
    usual.or_else(|| sleep.deeper.iter().map(|step| step.depth).find(|depth| *depth == Depth::Saved))
}

/// What is to be done to keep the budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remedy {
    /// Whom to put to sleep, in this order.
    pub sleep: Vec<MachineName>,
    /// Bytes that are lacking all the same, of the budget that lacks most.
    pub lacking: u64,
    /// Whose that is; `None` if the host's, or nothing is lacking.
    pub owner: Option<String>,
}

/// What is awake of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whose machines it bounds; `None`: all.
    pub owner: Option<String>,
    /// The budget, in bytes.
    pub bound: u64,
    /// Bytes of those that are awake.
    pub awake: u64,
}

impl Budgets {
    /// Is there any?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host.is_none() && self.owners.is_empty()
    }

    /// What keeps the budgets as things are.
    #[must_use]
    pub fn keep(&self, machines: &[Seen]) -> Remedy {
        self.remedy(machines, None)
    }

    /// What makes room for `machine`, which is about to be awake. It is never put to sleep itself, and nothing is
    /// lacking for one that counts already.
    #[must_use]
    pub fn room_for(&self, machine: &MachineName, machines: &[Seen]) -> Remedy {
        let newcomer = machines.iter().find(|seen| seen.name == *machine && !seen.use_.counts());
        newcomer.map_or_else(Remedy::default, |newcomer| self.remedy(machines, Some(newcomer)))
    }

    /// What is awake of each budget as things are; the host's last.
    #[must_use]
    pub fn spent(&self, machines: &[Seen]) -> Vec<Spent> {
        let spent = |(owner, bound): (Option<&str>, u64)| {
            let owner = owner.map(str::to_owned);
            let counts = |seen: &&Seen| seen.use_.counts() && (owner.is_none() || seen.owner == owner);
            let awake = sum(machines.iter().filter(counts));
            Spent { owner, bound, awake }
        };
        self.bounds().map(spent).collect()
    }

    fn remedy(&self, machines: &[Seen], newcomer: Option<&Seen>) -> Remedy {
        let remedy = self.shed(machines, newcomer, newcomer.map_or(0, |seen| seen.memory));
        if remedy.lacking == 0 || newcomer.is_none() {
            return remedy;
        }
        // In vain for whom there is no room all the same, by whichever bound; what was too much before is put
        // right in any case.
        Remedy { sleep: self.shed(machines, newcomer, 0).sleep, ..remedy }
    }

    /// Who would have to go so that `need` is free in all budgets that concern `newcomer`, or in all.
    fn shed(&self, machines: &[Seen], newcomer: Option<&Seen>, need: u64) -> Remedy {
        let mut idle: Vec<(Timestamp, &Seen)> = machines
            .iter()
            .filter_map(|seen| if let Use::Idle(since) = seen.use_ { Some((since, seen)) } else { None })
            .collect();
        idle.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
        let mut remedy = Remedy::default();
        // An owner's budget first: what it frees, the host's needs no more.
        for (owner, bound) in self.bounds() {
            let of = |seen: &Seen| owner.is_none() || seen.owner.as_deref() == owner;
            if newcomer.is_some_and(|seen| !of(seen)) {
                continue;
            }
            let stays = |seen: &&Seen| of(seen) && !remedy.sleep.contains(&seen.name) && seen.use_.counts();
            let awake = sum(machines.iter().filter(stays));
            let mut excess = awake.saturating_add(need).saturating_sub(bound);
            let mut chosen = Vec::new();
            for (_, seen) in idle.iter().filter(|(_, seen)| of(seen) && !remedy.sleep.contains(&seen.name)) {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(seen.memory);
                chosen.push(seen.name.clone());
            }
            if excess > remedy.lacking {
                (remedy.lacking, remedy.owner) = (excess, owner.map(str::to_owned));
            }
            remedy.sleep.extend(chosen);
        }
        remedy
    }

    fn bounds(&self) -> impl Iterator<Item = (Option<&str>, u64)> {
        let owners = self.owners.iter().map(|(owner, bound)| (Some(owner.as_str()), *bound));
        owners.chain(self.host.map(|bound| (None, bound)))
    }
}

fn sum<'a>(machines: impl Iterator<Item = &'a Seen>) -> u64 {
    machines.fold(0, |sum, seen| sum.saturating_add(seen.memory))
}

impl Use {
    const fn counts(self) -> bool {
        matches!(self, Self::Busy | Self::Idle(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(name: &str, owner: &str, memory: u64, use_: Use) -> Seen {
        let owner = Some(owner.to_owned()).filter(|owner| !owner.is_empty());
        Seen { name: name.parse().unwrap(), owner, memory, use_ }
    }

    fn host(bound: u64) -> Budgets {
        Budgets { host: Some(bound), ..Budgets::default() }
    }

    fn names(remedy: &Remedy) -> Vec<&str> {
        remedy.sleep.iter().map(MachineName::as_str).collect()
    }

    fn idle(since: u64) -> Use {
        Use::Idle(Timestamp(since))
    }

    #[test]
    fn the_longest_idle_goes_first_and_no_more_than_needed() {
        let machines = [
            seen("a", "", 4, idle(20)),
            seen("b", "", 4, idle(10)),
            seen("c", "", 4, Use::Busy),
            seen("web", "", 4, Use::Away),
        ];
        let web = "web".parse().unwrap();
        assert_eq!(host(16).room_for(&web, &machines), Remedy::default());
        assert_eq!(names(&host(12).room_for(&web, &machines)), ["b"]);
        assert_eq!(names(&host(8).room_for(&web, &machines)), ["b", "a"]);
        assert_eq!(names(&host(8).keep(&machines)), ["b"]);
    }

    #[test]
    fn nobody_is_put_to_sleep_in_vain() {
        let machines =
            [seen("a", "", 4, idle(1)), seen("b", "", 8, Use::Busy), seen("web", "", 16, Use::Away)];
        let remedy = host(20).room_for(&"web".parse().unwrap(), &machines);
        assert_eq!((names(&remedy), remedy.lacking), (vec![], 4));
        // Nor for one bound where another lacks.
        let budgets = Budgets { host: Some(28), owners: [("alice".into(), 16)].into() };
        let mut machines = [
            seen("a", "alice", 8, idle(1)),
            seen("b", "bob", 20, Use::Busy),
            seen("web", "alice", 12, Use::Away),
        ];
        let remedy = budgets.room_for(&"web".parse().unwrap(), &machines);
        assert_eq!((names(&remedy), remedy.lacking), (vec![], 4));
        machines[1].memory = 16;
        let remedy = budgets.room_for(&"web".parse().unwrap(), &machines);
        assert_eq!((names(&remedy), remedy.lacking), (vec!["a"], 0));
        // What is too much without it is put right all the same.
        let machines =
            [seen("a", "", 4, idle(1)), seen("b", "", 8, Use::Busy), seen("web", "", 16, Use::Away)];
        let remedy = host(10).room_for(&"web".parse().unwrap(), &machines);
        assert_eq!((names(&remedy), remedy.lacking), (vec!["a"], 14));
    }

    #[test]
    fn an_owner_makes_room_of_its_own() {
        let budgets = Budgets { host: Some(100), owners: [("alice".into(), 8)].into() };
        let machines = [
            seen("a", "alice", 4, idle(20)),
            seen("b", "bob", 4, idle(10)),
            seen("c", "alice", 4, idle(15)),
            seen("web", "alice", 4, Use::Away),
        ];
        assert_eq!(names(&budgets.room_for(&"web".parse().unwrap(), &machines)), ["c"]);
        assert_eq!(budgets.room_for(&"b".parse().unwrap(), &machines), Remedy::default());
    }

    #[test]
    fn who_has_its_memory_already_needs_no_room() {
        let machines = [seen("a", "", 4, idle(20)), seen("b", "", 8, Use::Busy)];
        for name in ["a", "b"] {
            assert_eq!(host(2).room_for(&name.parse().unwrap(), &machines), Remedy::default());
        }
    }

    #[test]
    fn what_keeps_its_memory_makes_room_only_where_its_file_lets_it_go_deeper() {
        let depth = |qemu: &str, sleep: &str| {
            let text = format!(
                "name = \"web\"\n[qemu]\nmemory = 16777216\nkernel = \"vmlinuz\"\n{qemu}\n[sleep]\n{sleep}\n"
            );
            room_depth(&MachineSpec::from_toml(&text, std::path::Path::new("/")).unwrap())
        };
        assert_eq!(depth("", ""), Some(Depth::Saved));
        assert_eq!(depth("", "idle_after = \"never\""), None);
        assert_eq!(depth("", "depth = \"off\""), Some(Depth::Off));
        assert_eq!(depth("", "depth = \"paused\""), None);
        assert_eq!(depth("page_out = true", "depth = \"paused\""), Some(Depth::Paused));
        let deeper = |step: &str| format!("depth = \"paused\"\ndeeper = [{{ {step}, after = \"1h\" }}]");
        assert_eq!(depth("", &deeper("depth = \"saved\"")), Some(Depth::Saved));
        assert_eq!(depth("page_out = true", &deeper("depth = \"saved\"")), Some(Depth::Paused));
        // It loses what it has in memory: that is allowed after a while, not for somebody else's sake.
        assert_eq!(depth("", &deeper("depth = \"off\"")), None);
    }

    fn machines() -> impl Strategy<Value = Vec<Seen>> {
        let use_ =
            prop_oneof![Just(Use::Away), Just(Use::Leaving), Just(Use::Busy), (0..50_u64).prop_map(idle),];
        let one = (1..20_u64, 0..3_usize, use_);
        prop::collection::vec(one, 1..12).prop_map(|all| {
            let of = |(n, (memory, owner, use_)): (usize, (u64, usize, Use))| {
                seen(&format!("m{n}"), ["", "alice", "bob"][owner], memory, use_)
            };
            all.into_iter().enumerate().map(of).collect()
        })
    }

    fn awake(machines: &[Seen], without: &[MachineName], owner: Option<&str>) -> u64 {
        let of = |seen: &&Seen| owner.is_none() || seen.owner.as_deref() == owner;
        let stays = machines.iter().filter(|seen| seen.use_.counts() && !without.contains(&seen.name));
        stays.filter(of).map(|seen| seen.memory).sum()
    }

    proptest! {
        /// Only idle machines are put to sleep, none twice, and not the one that room is made for. Where nothing
        /// is lacking, all budgets that concern it are kept afterwards; and none would be without the last.
        #[test]
        fn budgets_are_kept_or_it_is_said_what_is_lacking(
            machines in machines(), bound in 0..120_u64, alice in 0..60_u64, guest in 0..12_usize,
        ) {
            let budgets = Budgets { host: Some(bound), owners: [("alice".to_owned(), alice)].into() };
            let guest = &machines[guest % machines.len()];
            let remedy = budgets.room_for(&guest.name, &machines);
            let mut sorted = remedy.sleep.clone();
            sorted.sort();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), remedy.sleep.len());
            for name in &remedy.sleep {
                let of = machines.iter().find(|seen| seen.name == *name).unwrap();
                prop_assert!(matches!(of.use_, Use::Idle(_)) && *name != guest.name);
            }
            if guest.use_.counts() {
                prop_assert_eq!(remedy, Remedy::default());
                return Ok(());
            }
            let need = guest.memory;
            let total = awake(&machines, &remedy.sleep, None) + need;
            let is_alices = guest.owner.as_deref() == Some("alice");
            let of_alice = awake(&machines, &remedy.sleep, Some("alice")) + need;
            if remedy.lacking == 0 {
                prop_assert!(total <= bound && (!is_alices || of_alice <= alice));
            } else {
                prop_assert!(total > bound || (is_alices && of_alice > alice));
                // Nobody goes in vain: but for what is too much already.
                let (total, of_alice) = (awake(&machines, &[], None), awake(&machines, &[], Some("alice")));
                let is_kept = total <= bound && (!is_alices || of_alice <= alice);
                prop_assert!(remedy.sleep.is_empty() || !is_kept);
            }
            // Those who stay were not idle longer than any of theirs that goes.
            if !is_alices {
                let since = |name: &MachineName| machines.iter().find_map(|s| match s.use_ {
                    Use::Idle(at) if s.name == *name => Some(at),
                    _ => None,
                });
                let last = remedy.sleep.iter().filter_map(since).max();
                for stays in machines.iter().filter(|s| !remedy.sleep.contains(&s.name) && s.name != guest.name) {
                    if let (Use::Idle(at), Some(last)) = (stays.use_, last) {
                        prop_assert!(at >= last);
                    }
                }
                // Without the last of them it would not do.
                if let (Some((_, rest)), 0) = (remedy.sleep.split_last(), remedy.lacking) {
                    prop_assert!(awake(&machines, rest, None) + need > bound);
                }
            }
        }

        /// Once a remedy is carried out there is nothing more to do that could be done.
        #[test]
        fn a_plan_is_whole(machines in machines(), bound in 0..120_u64, alice in 0..60_u64) {
            let budgets = Budgets { host: Some(bound), owners: [("alice".to_owned(), alice)].into() };
            let remedy = budgets.keep(&machines);
            let mut after = machines.clone();
            for seen in after.iter_mut().filter(|seen| remedy.sleep.contains(&seen.name)) {
                seen.use_ = Use::Leaving;
            }
            prop_assert_eq!(budgets.keep(&after).sleep, Vec::<MachineName>::new());
            prop_assert_eq!(budgets.keep(&after).lacking, remedy.lacking);
        }
    }
}
