//! What is told of the budgets: by `why` of a machine, and by `doctor`.

use dormouse_api_types::{AwakeBudget, Check, MakesRoom, NeedsRoom, Time, Why};
use dormouse_machine::{
    budget::{Budgets, Seen, Use, room_depth},
    lifecycle::State,
};

use super::{Host, idle_but_kept};
use crate::{doctor, driver::Handle};

impl Host {
    /// Adds to `why` what the budgets have to do with its machine.
    pub(in crate::host) fn told_of_budgets(&self, handle: &Handle, why: Why) -> Why {
        let bounds = self.config().budget.bounds();
        if bounds.is_empty() {
            return why;
        }
        let (seen, owner) = (self.seen(), handle.spec.owner.as_deref());
        let concerns = |of: Option<&str>| of.is_none() || of == owner;
        let budgets =
            self.spent(&bounds, &seen).into_iter().filter(|b| concerns(b.owner.as_deref())).collect();
        Why {
            makes_room: self.makes_room(handle, &bounds, &seen),
            needs_room: needs_room(handle, &bounds, &seen),
            budgets,
            ..why
        }
    }

    /// What `doctor` says of them.
    pub(in crate::host) fn budget_checks(&self) -> Vec<Check> {
        self.spent(&self.config().budget.bounds(), &self.seen()).iter().map(doctor::budget).collect()
    }

    fn spent(&self, bounds: &Budgets, seen: &[Seen]) -> Vec<AwakeBudget> {
        let told = |spent: dormouse_machine::budget::Spent| AwakeBudget {
            owner: spent.owner,
            bytes: spent.bound,
            awake_bytes: spent.awake,
            strict: self.config().budget.strict,
        };
        bounds.spent(seen).into_iter().map(told).collect()
    }

    /// When a machine that is awake and idle sleeps so that others have room, and who goes before it.
    fn makes_room(&self, handle: &Handle, bounds: &Budgets, machines: &[Seen]) -> Option<MakesRoom> {
        let now = self.shared.clock.now();
        let is_active = |state: &State| *state == State::Active;
        let idle = handle.peek(|view| is_active(&view.state).then(|| idle_but_kept(handle, view, now)));
        let (since, kept) = idle??;
        let owner = handle.spec.owner.as_deref();
        let is_bound = owner.is_some_and(|owner| bounds.owners.contains_key(owner));
        if !is_bound && bounds.host.is_none() {
            return None;
        }
        let rivals = machines.iter().filter(|seen| bounds.host.is_some() || seen.owner.as_deref() == owner);
        let goes_before = |seen: &&Seen| match seen.use_ {
            Use::Idle(at) => (at, &seen.name) < (since, &handle.name),
            _ => false,
        };
        Some(MakesRoom {
            depth: room_depth(&handle.spec)?,
            from: kept.map(Time::from),
            after: u64::try_from(rivals.filter(goes_before).count()).unwrap_or(u64::MAX),
        })
    }
}

/// What a sleeper's wake would cost the others.
fn needs_room(handle: &Handle, bounds: &Budgets, machines: &[Seen]) -> Option<NeedsRoom> {
    let is_away = handle.peek(|view| matches!(view.state, State::Asleep { .. } | State::Stopped));
    let plan = bounds.room_for(&handle.name, machines);
    let needs = is_away && (plan.lacking > 0 || !plan.sleep.is_empty());
    needs.then_some(NeedsRoom { sleep: plan.sleep, lacking_bytes: plan.lacking })
}
