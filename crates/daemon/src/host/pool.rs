//! The standbys of this host: what [`dormouse_machine::standby`] decides, done.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use dormouse_api_types::Check;
use dormouse_machine::{
    lifecycle::State,
    standby::{self, Machine, Standbys, Step},
};
use dormouse_platform::Error;
use dormouse_types::{Depth, MachineName};
use futures::future::join_all;
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, MissedTickBehavior},
};

use super::Host;
use crate::{chain::chain, doctor, driver::Handle, pressure};

/// How often it is asked whether the sleepers are to be looked at, and how often they are while
/// there is something to do, or the host is short of memory.
const LOOK: Duration = Duration::from_secs(1);
/// How often they are looked at otherwise: for what ended or grew by itself, or is to be tried again.
const SELDOM: Duration = Duration::from_secs(10);

/// Keeps the standbys as the policy wants them, for as long as there is a host.
pub(super) async fn keep(host: Weak<Host>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut policy, mut attention, mut starting): (Option<Standbys>, _, _) = (None, None, None);
    loop {
        let finished = tokio::select! {
            done = finished(&mut starting) => Some(done),
            _ = ticks.tick() => None,
        };
        let Some(host) = host.upgrade() else { return };
        let wanted = &host.config().standby;
        let now = Instant::now();
        let attention = attention.get_or_insert_with(|| Attention::new(wanted.after.get(), now));
        // Where nobody stands by, nothing can be given back.
        let is_tight = policy.as_ref().is_some_and(Standbys::has_any) && pressure::is_tight();
        let is_due = attention.is_due(host.events().last(), is_tight, now);
        if finished.is_none() && !is_due {
            continue;
        }
        let budget = u64::try_from(wanted.memory).unwrap_or(u64::MAX);
        let policy = policy.get_or_insert_with(|| Standbys::new(budget, wanted.after.get()));
        if let Some((name, done)) = finished {
            host.note_start(&name, done, policy);
        }
        // Until there is nothing more to do, so that a burst of sleeps is served without delay.
        while host.tend(policy, &mut starting).await {}
    }
}

/// When the sleepers are to be looked at, since a look at all of many thousands takes a while.
#[derive(Debug)]
struct Attention {
    /// How long after the last event something may still be to do.
    span: Duration,
    /// The last event that was seen, and when it was.
    event: u64,
    event_at: Instant,
    looked: Instant,
}

impl Attention {
    /// Sleepers have slept long enough `after` they fell asleep.
    fn new(after: Duration, now: Instant) -> Self {
        Self { span: after + 2 * LOOK, event: 0, event_at: now, looked: now }
    }

    fn is_due(&mut self, last_event: u64, is_tight: bool, now: Instant) -> bool {
        if self.event != last_event {
            (self.event, self.event_at) = (last_event, now);
        }
        let may_do = now.duration_since(self.event_at) <= self.span;
        let is_due = is_tight || may_do || now.duration_since(self.looked) >= SELDOM;
        if is_due {
            self.looked = now;
        }
        is_due
    }
}

/// A standby that is being started: that may take as long as QEMU is given to answer, and the
/// others are not left alone meanwhile.
struct Starting {
    name: MachineName,
    task: JoinHandle<Result<bool, Error>>,
}

/// How the start that is under way ends; never, if none is. May be dropped and asked for again.
async fn finished(starting: &mut Option<Starting>) -> (MachineName, Result<Result<bool, Error>, JoinError>) {
    let Some(under_way) = starting else { return std::future::pending().await };
    let (done, name) = ((&mut under_way.task).await, under_way.name.clone());
    *starting = None;
    (name, done)
}

impl Host {
    /// One step; false if there was none to take.
    async fn tend(&self, policy: &mut Standbys, starting: &mut Option<Starting>) -> bool {
        let handles = self.handles();
        let starts = |handle: &Handle| starting.as_ref().is_some_and(|start| start.name == handle.name);
        let machines = join_all(handles.iter().map(|handle| look(handle, starts(handle)))).await;
        let is_busy = |view: &crate::driver::View| {
            matches!(view.state, State::Waking { .. } | State::Settling { .. } | State::Undoing { .. })
        };
        let busy = handles.iter().any(|handle| handle.peek(is_busy));
        let state = standby::Host { busy, tight: pressure::is_tight() };
        let now = self.shared.clock.now();
        let Some(step) = policy.next(&machines, state, now) else { return false };
        let (Step::Warm(name) | Step::Cool(name)) = &step;
        let Ok(handle) = self.find(name) else { return false };
        match step {
            Step::Warm(name) => {
                let task = tokio::spawn(async move { handle.instance.warm().await });
                *starting = Some(Starting { name, task });
            }
            Step::Cool(name) if !cool(&handle).await => policy.failed(&name, self.shared.clock.now()),
            Step::Cool(_) => {}
        }
        true
    }

    fn note_start(
        &self,
        name: &MachineName,
        done: Result<Result<bool, Error>, JoinError>,
        policy: &mut Standbys,
    ) {
        let error = match done {
            Ok(Ok(true)) => {
                tracing::debug!(machine = %name, "a process stands by for its wake");
                return;
            }
            Ok(Ok(false)) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(error) => Some(chain(&error)),
        };
        match error {
            Some(error) => {
                tracing::warn!(machine = %name, error, "no process stands by: it wakes without");
            }
            None => tracing::debug!(machine = %name, "there is nothing to stand by for"),
        }
        policy.failed(name, self.shared.clock.now());
    }

    /// Ends all: who goes on sleeping needs none while nobody watches over them.
    pub(super) async fn cool_all(&self) {
        join_all(self.handles().iter().map(cool)).await;
    }

    /// What `doctor` says of them.
    pub(super) async fn standbys(&self) -> Check {
        let handles = self.handles();
        let bytes: Vec<u64> = join_all(handles.iter().map(|handle| look(handle, false)))
            .await
            .into_iter()
            .filter_map(|seen| seen.standby)
            .collect();
        doctor::standbys(self.config().standby.memory, &bytes)
    }
}

async fn look(handle: &Handle, starting: bool) -> Machine {
    // One that starts cannot say until QEMU has answered.
    let standby = if starting { None } else { handle.instance.standby_bytes().await };
    handle.peek(|view| Machine {
        name: handle.name.clone(),
        asleep_since: asleep_since(view),
        last_wake: view.last_wake.as_ref().map(|wake| wake.at),
        standby,
        starting,
    })
}

fn asleep_since(view: &crate::driver::View) -> Option<dormouse_types::Timestamp> {
    let sleeps = view.settled && view.state == State::Asleep { depth: Depth::Saved };
    sleeps.then_some(view.since)
}

async fn cool(handle: &Handle) -> bool {
    let name: &MachineName = &handle.name;
    match handle.instance.cool().await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(machine = %name, error = chain(&error), "a process that stands by cannot be ended");
            false
        }
    }
}

/// Starts [`keep`].
pub(super) fn start(host: &Arc<Host>) {
    tokio::spawn(keep(Arc::downgrade(host)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_looked_at_after_an_event_and_else_seldom() {
        let (start, after) = (Instant::now(), Duration::from_secs(3));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut attention = Attention::new(after, start);
        let mut looks = |seconds: std::ops::RangeInclusive<u64>, event, is_tight| {
            seconds.filter(|second| attention.is_due(event, is_tight, at(*second))).collect::<Vec<_>>()
        };
        assert_eq!(looks(1..=40, 0, false), [1, 2, 3, 4, 5, 15, 25, 35]);
        // Until whoever has just fallen asleep has slept long enough.
        assert_eq!(looks(41..=50, 1, false), [41, 42, 43, 44, 45, 46]);
        assert_eq!(looks(51..=53, 1, true), [51, 52, 53]);
        assert_eq!(looks(54..=65, 1, false), [63]);
    }
}
