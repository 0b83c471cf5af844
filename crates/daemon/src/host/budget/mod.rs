//! The budgets of this host: what [`dormouse_machine::budget`] decides, done.
//!
//! ```text
//! drivers ── is there room? ──► keeper ── make room ──► drivers of the idle, which look once more
//!    ▲                             │
//!    └──── there is, or not ───────┘
//! ```

mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use dormouse_machine::{
    budget::{Budgets, Seen, Use, gives_back, room_depth},
    lifecycle::State,
};
use dormouse_types::{MachineName, Timestamp};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, timeout},
};

use super::Host;
use crate::{
    driver::{Handle, Message, View},
    room::{Answer, Ask, Desk, Granted, Need},
};

/// How often it is looked whether the budgets are kept.
const LOOK: Duration = Duration::from_secs(1);
/// The same while machines wait for room.
const SOON: Duration = Duration::from_millis(50);
/// How long a machine that is about to wake waits for the last look at those that are to make room.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for them to be asleep, where a budget is strict.
const STRICT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a last look may take.
const LAST_LOOK: Duration = Duration::from_secs(10);
/// One that did not go to sleep is left alone for so long.
const AGAIN: Duration = Duration::from_secs(10);

/// Questions that are answered in one go.
const BATCH: usize = 64;

/// A machine that waits for room.
struct Waiting {
    ask: Ask,
    since: Instant,
}

/// What is under way.
struct Keeper {
    budgets: Budgets,
    strict: bool,
    granted: Granted,
    waiting: Vec<Waiting>,
    /// Those that are to go to sleep and have not said yet whether they do.
    asked: BTreeSet<MachineName>,
    answers: FuturesUnordered<BoxFuture<'static, (MachineName, bool)>>,
    /// Those that did not, and until when they are left alone.
    refused: BTreeMap<MachineName, Instant>,
}

/// What becomes of a machine that waits.
enum Verdict {
    Fits,
    Waits(Vec<MachineName>),
    /// How much, and in whose budget; in the host's if in nobody's.
    Lacks(u64, Option<String>),
}

/// Keeps the budgets for as long as there is a host.
async fn keep(host: Weak<Host>, mut desk: Desk, mut keeper: Keeper) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asks = Vec::new();
    loop {
        tokio::select! {
            count = desk.asks.recv_many(&mut asks, BATCH) => if count == 0 { return },
            Some((name, sleeps)) = keeper.answers.next() => keeper.answered(name, sleeps),
            _ = ticks.tick() => {}
            () = tokio::time::sleep(SOON), if !keeper.waiting.is_empty() => {}
        }
        let Some(host) = host.upgrade() else { return };
        let since = Instant::now();
        keeper.waiting.extend(asks.drain(..).map(|ask| Waiting { ask, since }));
        keeper.look(&host, since);
    }
}

impl Keeper {
    fn answered(&mut self, name: MachineName, sleeps: bool) {
        self.asked.remove(&name);
        if !sleeps {
            tracing::debug!(machine = %name, "does not make room: it is idle no longer");
            self.refused.insert(name, Instant::now() + AGAIN);
        }
    }

    /// Answers whom it can, and puts to sleep who must.
    fn look(&mut self, host: &Host, now: Instant) {
        self.refused.retain(|_, until| *until > now);
        let mut machines = host.seen();
        for seen in &mut machines {
            if self.granted.has(&seen.name) {
                seen.use_ = Use::Busy;
            } else if let Use::Idle(_) = seen.use_ {
                if self.asked.contains(&seen.name) {
                    seen.use_ = Use::Leaving;
                } else if self.refused.contains_key(&seen.name) {
                    seen.use_ = Use::Busy;
                }
            }
        }
        for name in self.budgets.keep(&machines).sleep {
            self.put_to_sleep(host, &mut machines, &name, "to keep the budget of awake memory");
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.serve(host, &mut machines, waiting, now);
        }
    }

    fn serve(&mut self, host: &Host, machines: &mut [Seen], waiting: Waiting, now: Instant) {
        if waiting.ask.reply.is_closed() {
            return;
        }
        let name = waiting.ask.name.clone();
        match self.judge(&name, machines, now.duration_since(waiting.since)) {
            Verdict::Fits => self.grant(waiting.ask, None),
            Verdict::Waits(sleep) => {
                for leaver in sleep {
                    self.put_to_sleep(host, machines, &leaver, &format!("to make room for {name}"));
                }
                self.waiting.push(waiting);
            }
            Verdict::Lacks(bytes, owner) => {
                let lacking = bytesize::ByteSize(bytes).display().iec();
                let budget = owner.map_or_else(|| "the budget".into(), |owner| format!("{owner}'s budget"));
                let why = format!(
                    "{budget} of awake memory is {lacking} too small for it, and nobody else is idle"
                );
                if self.strict || waiting.ask.need == Need::Ahead {
                    let _ = waiting.ask.reply.send(Answer::Refused(why));
                    return;
                }
                self.grant(waiting.ask, Some(format!("wakes all the same: {why}")));
            }
        }
        // Those who come later do not count on the same room.
        set(machines, &name, Use::Busy);
    }

    /// Is there room for a machine that has waited so long?
    fn judge(&self, name: &MachineName, machines: &[Seen], waited: Duration) -> Verdict {
        let plan = self.budgets.room_for(name, machines);
        if plan.lacking > 0 {
            return Verdict::Lacks(plan.lacking, plan.owner);
        }
        let patience = if self.strict { STRICT_PATIENCE } else { PATIENCE };
        if !plan.sleep.is_empty() && waited < patience {
            return Verdict::Waits(plan.sleep);
        }
        // Those count of whom it is not certain yet that they go, and where it is strict, until they are gone.
        let mut certain = machines.to_vec();
        for seen in &mut certain {
            if seen.use_ == Use::Leaving && (self.strict || self.asked.contains(&seen.name)) {
                seen.use_ = Use::Busy;
            }
        }
        let plan = self.budgets.room_for(name, &certain);
        match plan.lacking {
            0 if plan.sleep.is_empty() => Verdict::Fits,
            lacking if waited >= patience => Verdict::Lacks(lacking, plan.owner),
            _ => Verdict::Waits(Vec::new()),
        }
    }

    fn grant(&self, ask: Ask, exceeded: Option<String>) {
        let grant = Some(self.granted.grant(&ask.name));
        // Whoever asked may have given it up.
        let _ = ask.reply.send(Answer::Granted { grant, exceeded });
    }

    fn put_to_sleep(&mut self, host: &Host, machines: &mut [Seen], name: &MachineName, why: &str) {
        set(machines, name, Use::Leaving);
        let Ok(handle) = host.find(name) else { return };
        self.asked.insert(name.clone());
        let (name, why) = (name.clone(), why.to_owned());
        let asking = async move {
            let (reply, answer) = oneshot::channel();
            let asked = async {
                handle.tell(Message::MakeRoom { why, reply }).await;
                answer.await.unwrap_or(false)
            };
            (name, timeout(LAST_LOOK, asked).await.unwrap_or(false))
        };
        self.answers.push(asking.boxed());
    }
}

fn set(machines: &mut [Seen], name: &MachineName, use_: Use) {
    if let Some(seen) = machines.iter_mut().find(|seen| seen.name == *name) {
        seen.use_ = use_;
    }
}

impl Host {
    /// The machines as the policy sees them.
    fn seen(&self) -> Vec<Seen> {
        let now = self.shared.clock.now();
        self.handles().iter().map(|handle| seen(handle, now)).collect()
    }
}

fn seen(handle: &Handle, now: Timestamp) -> Seen {
    let gives_back = |depth| gives_back(&handle.spec.platform, depth);
    let use_ = handle.peek(|view| match view.state {
        State::Stopped | State::Failed { .. } => Use::Away,
        State::Asleep { depth } if gives_back(depth) => Use::Away,
        State::Asleep { .. } => sleeps_since(handle, view).map_or(Use::Busy, Use::Idle),
        State::Settling { depth, .. } if gives_back(depth) => Use::Leaving,
        State::Stopping => Use::Leaving,
        State::Settling { .. } | State::Undoing { .. } | State::Waking { .. } | State::Suspended { .. } => {
            Use::Busy
        }
        State::Active => idle_since(handle, view, now).map_or(Use::Busy, Use::Idle),
    });
    let (name, owner) = (handle.name.clone(), handle.spec.owner.clone());
    Seen { name, owner, memory: handle.spec.platform.memory(), use_ }
}

/// Can it make room at all?
fn can_make_room(handle: &Handle) -> bool {
    room_depth(&handle.spec).is_some_and(|depth| handle.instance.capabilities().depths.contains(&depth))
}

/// Since when a machine that is awake is idle, if it may be put to sleep.
fn idle_since(handle: &Handle, view: &View, now: Timestamp) -> Option<Timestamp> {
    let (since, kept) = idle_but_kept(handle, view, now)?;
    (view.settled && kept.is_none()).then_some(since)
}

/// Since when a machine that is awake is idle, and until when it is kept awake all the same. `None` if it makes no
/// room, or nobody knows when it will.
fn idle_but_kept(handle: &Handle, view: &View, now: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    let since = view.idle.as_ref()?.idle_since?;
    let keeps = view.keeps.iter().map(|keep| keep.until);
    let holds = view.holds.blocking(now).map(|hold| hold.until);
    let ends: Option<Vec<_>> = keeps.chain(holds).collect();
    let may = !view.unaddressed.all() && can_make_room(handle);
    Some((since, ends.filter(|_| may)?.into_iter().max()))
}

/// Since when a machine sleeps that has its memory, if it may sleep deeper.
fn sleeps_since(handle: &Handle, view: &View) -> Option<Timestamp> {
    let is_wanted = view.no_room.is_some() || !view.settled;
    let may = !is_wanted && view.absent.is_none() && view.unreachable.is_none() && can_make_room(handle);
    may.then_some(view.since)
}

/// Starts to keep the budgets.
pub(super) fn start(host: &Arc<Host>, desk: Desk) {
    let budget = &host.config().budget;
    let keeper = Keeper {
        budgets: budget.bounds(),
        strict: budget.strict,
        granted: desk.granted.clone(),
        waiting: Vec::new(),
        asked: BTreeSet::new(),
        answers: FuturesUnordered::new(),
        refused: BTreeMap::new(),
    };
    tokio::spawn(keep(Arc::downgrade(host), desk, keeper));
}
