//! What decides when a machine sleeps and wakes by itself: its policy, what it is told, and what is
//! kept of it.
//!
//! A policy sees the edges of use, as `dormouse simulate` shows them to it: from verdicts on samples while
//! the guest runs, from what woke it while it slept. A wake that nobody wanted is no use.

use std::time::Duration;

use dormouse_machine::{
    idle::Verdict,
    lifecycle::{Cause, State},
    policy::{Kind, Plan, Policy, Settings},
};
use dormouse_types::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What counters show so soon after a wake that nobody wanted is the wake's own work, and that they were not
/// read twice yet.
const SETTLES: Duration = Duration::from_secs(30);

/// A wake ahead that is so late was for somebody who has come, or not: it is planned anew.
const STALE: Duration = Duration::from_secs(300);

/// While a machine runs, what was learned is made durable no more often than this.
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// A machine's policy.
#[derive(Debug)]
pub(super) struct Mind {
    settings: Settings,
    policy: Box<dyn Policy>,
    /// When the idle time began that the policy was last told of.
    idle_since: Option<Timestamp>,
    /// The same, as of the last verdict since the guest runs.
    quiet_since: Option<Timestamp>,
    is_asleep: bool,
    /// It was woken, though not for use; see [`SETTLES`].
    settles: Option<Timestamp>,
    /// Not to sleep before.
    barred: Timestamp,
    /// For a sleeper.
    wake: Option<Plan>,
    /// What is kept is not all that was learned.
    dirty: bool,
    kept: Timestamp,
    /// Why what was kept could not be used.
    loss: Option<String>,
}

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    policy: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_since: Option<Timestamp>,
    memory: Value,
}

impl Mind {
    /// Of a machine in use, with what was kept of it.
    pub(super) fn new(settings: Settings, zone: TimeZone, kept: Option<&Value>) -> Self {
        let known = kept.map(Kept::deserialize);
        let is_other = matches!(&known, Some(Ok(kept)) if kept.policy != settings.kind);
        let known = known.and_then(Result::ok).filter(|kept| settings.kind.reads(&kept.memory) && !is_other);
        let is_lost = kept.is_some() && known.is_none() && !is_other && settings.kind != Kind::Fixed;
        let loss = is_lost.then(|| {
            format!("what its policy ({}) had learned cannot be read: it learns afresh", settings.kind)
        });
        Self {
            policy: settings.build(zone, known.as_ref().map(|kept| &kept.memory)),
            settings,
            idle_since: known.and_then(|kept| kept.idle_since),
            quiet_since: None,
            is_asleep: false,
            settles: None,
            barred: Timestamp::default(),
            wake: None,
            dirty: is_lost,
            kept: Timestamp::default(),
            loss,
        }
    }

    /// Why what was kept could not be used; said once.
    pub(super) const fn take_loss(&mut self) -> Option<String> {
        self.loss.take()
    }

    /// The machine was found in a state that it entered at `since`.
    pub(super) fn adopt(&mut self, state: &State, since: Timestamp) {
        let idle_since = self.idle_since.take();
        if matches!(state, State::Asleep { .. }) {
            self.idle(idle_since.unwrap_or(since));
            self.slept(since);
        }
    }

    /// The machine's state changed, which was caused at `caused`.
    pub(super) fn entered(&mut self, from: &State, to: &State, caused: Timestamp, now: Timestamp) {
        match (from, to) {
            (State::Waking { cause, .. } | State::Undoing { cause }, State::Active) => {
                self.woke(cause, caused, now);
            }
            (_, State::Active) => self.used(now),
            // It may go deeper without having been awake.
            (_, State::Asleep { .. }) if !self.is_asleep => self.slept(now),
            _ => {}
        }
    }

    fn woke(&mut self, cause: &Cause, caused: Timestamp, now: Timestamp) {
        match cause {
            Cause::Command | Cause::Hold(_) | Cause::Packet(_) | Cause::Others(_) => self.used(caused),
            Cause::Ahead(_) | Cause::Deeper | Cause::Restart | Cause::Failure(_) => {
                (self.is_asleep, self.quiet_since, self.wake) = (false, None, None);
                self.settles = Some(now + SETTLES);
                // Who plans wakes has a plan for after them. For others the time begins anew.
                let plans = self.settings.kind == Kind::Predictive && matches!(cause, Cause::Ahead(_));
                self.barred = if plans { now } else { now + self.settings.idle_after.unwrap_or_default() };
            }
        }
    }

    /// Use began.
    fn used(&mut self, at: Timestamp) {
        self.policy.turned(true, at);
        self.dirty |= self.idle_since.is_some() || self.is_asleep;
        (self.idle_since, self.quiet_since, self.settles, self.wake) = (None, None, None, None);
        (self.is_asleep, self.barred) = (false, Timestamp::default());
    }

    /// Use ended, unless it had before.
    fn idle(&mut self, at: Timestamp) {
        self.policy.turned(false, at);
        self.idle_since.get_or_insert(at);
    }

    fn slept(&mut self, at: Timestamp) {
        // Somebody may have put it to sleep in the midst of its use.
        self.idle(at);
        self.policy.slept(at);
        (self.is_asleep, self.dirty) = (true, true);
        self.wake = self.policy.wake_at(at);
    }

    /// What its samples show.
    pub(super) fn saw(&mut self, verdict: &Verdict) {
        match (verdict.idle_since, self.quiet_since) {
            (Some(since), Some(before)) if since <= before => {}
            (Some(since), before) => {
                // It is later than it was: there was use between, if only for a moment.
                if before.is_some() {
                    self.used(since);
                }
                self.idle(since);
                (self.quiet_since, self.settles) = (Some(since), None);
            }
            (None, _) if self.settles.is_some_and(|until| verdict.at < until) => {}
            (None, _) => {
                let busy = verdict.signals.iter().filter(|signal| signal.busy && signal.threshold.is_some());
                let began = busy.map(|signal| signal.since).min().unwrap_or(verdict.at);
                self.used(self.idle_since.map_or(began, |idle| began.max(idle)));
            }
        }
    }

    /// When a machine that is idle by the verdict is to sleep, and why.
    pub(super) fn sleep_at(&self, verdict: &Verdict, now: Timestamp) -> Option<Plan> {
        verdict.idle_since?;
        let plan = self.policy.sleep_at(now)?;
        Some(Plan { at: plan.at.max(self.barred), ..plan })
    }

    /// When it will go to sleep if nothing happens, as far as that is known.
    pub(super) fn outlook(&self, verdict: &Verdict, now: Timestamp) -> Option<Timestamp> {
        let plan = self.sleep_at(verdict, now).map(|plan| plan.at);
        // Of use whose end is known, only a fixed time says what follows.
        plan.or_else(|| verdict.expected.filter(|_| self.settings.kind == Kind::Fixed))
    }

    /// When a sleeper is to be woken before anybody wants it, and why.
    pub(super) const fn wake_at(&self) -> Option<&Plan> {
        self.wake.as_ref()
    }

    /// Plans a sleeper's wake anew if the plan is out of date.
    pub(super) fn plan_anew(&mut self, now: Timestamp) {
        if self.wake.as_ref().is_some_and(|plan| now.since(plan.at) > STALE) {
            self.wake = self.policy.wake_at(now);
        }
    }

    /// The plan in words. A fixed time needs none.
    pub(super) fn words(&self, state: &State, verdict: Option<&Verdict>) -> Option<String> {
        let kind = self.settings.kind;
        let plan = match state {
            State::Active => verdict.and_then(|verdict| self.sleep_at(verdict, verdict.at)),
            State::Asleep { .. } => self.wake.clone(),
            _ => None,
        };
        plan.filter(|_| kind != Kind::Fixed).map(|plan| format!("{kind}: {}", plan.why))
    }

    /// What is to be kept, if it is not what was kept last.
    pub(super) fn changes(&mut self, now: Timestamp) -> Option<Value> {
        let is_time = self.is_asleep || now.since(self.kept) >= KEEP_EVERY || now < self.kept;
        if !(self.dirty && is_time) {
            return None;
        }
        self.dirty = false;
        let kept =
            Kept { policy: self.settings.kind, idle_since: self.idle_since, memory: self.policy.memory()? };
        self.kept = now;
        serde_json::to_value(kept).ok()
    }
}
