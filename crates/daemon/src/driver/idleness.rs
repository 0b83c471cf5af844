//! Whether the machine is idle: what is asked for that, and what follows from the answers.
//!
//! Each tick asks for the counters, the connections and, sparingly, the guest. When the machine is due to
//! sleep all of it is asked once more, and only the fresh answers put it to sleep: who came meanwhile wins.

use std::{sync::Arc, time::Duration};

use dormouse_machine::{
    idle::{self, Connection, GuestWord, IdlePolicy, Keep, Sample, Schedule, Verdict},
    lifecycle::{Cause, Event, State},
    meter,
    policy::Settings,
    spec::{MachineSpec, SleepSpec},
};
use dormouse_platform::{Counters, Faults, Inside, Instance};
use dormouse_types::{Depth, MacAddr, Timestamp};
use dormouse_wire::{Flow, Followed};
use futures::future::join_all;
use jiff::tz::TimeZone;

use super::{
    Shared,
    jobs::{Finished, Job},
    mind::Mind,
    opinion::Word,
    room::Favour,
    run::Driver,
    setback::Setbacks,
    view::unaddressed,
};
use crate::{chain::chain, platforms::abilities};

/// A guest is asked so often, which costs it something, and not more often than its counters are read.
const ASK_GUEST: Duration = Duration::from_secs(30);
/// How long it may take for its answer.
const GUEST_PATIENCE: Duration = Duration::from_secs(5);
/// Answers that took longer to come tell nothing of now: they put no machine to sleep.
const FRESH: Duration = Duration::from_secs(10);

/// What a driver knows of its machine's use.
pub(super) struct Idleness {
    pub(super) policy: IdlePolicy,
    pub(super) schedule: Schedule,
    /// What decides when it sleeps, and wakes ahead.
    pub(super) mind: Mind,
    pub(super) report: Option<Verdict>,
    /// What keeps it awake whatever its use and whatever its policy says, as of the report.
    keeps: Vec<Keep>,
    /// It is to make room for others, if the last look finds it idle.
    pub(super) favour: Option<Favour>,
    /// Answers are under way.
    is_asking: bool,
    guest_asked: Option<Timestamp>,
    guest_silent: bool,
    /// What the program that says when it sleeps said last.
    pub(super) word: Word,
    pub(super) setbacks: Setbacks,
}

/// A look at the machine's use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// When, by the steady clock.
    asked: Duration,
    /// The machine was due to sleep before.
    is_last: bool,
}

/// What was asked for, as it was while the answers came.
#[derive(Debug)]
pub(super) struct Answers {
    look: Look,
    counters: Counters,
    connections: Vec<Connection>,
    /// The guest's, if it was asked.
    guest: Option<Option<Inside>>,
    /// Its balloon driver's, if that was asked.
    faults: Option<Option<Faults>>,
    /// Those who look at its screen.
    viewers: Option<u32>,
    inhibitors: Vec<Keep>,
    /// Why its platform cannot put it to sleep; looked for if it was due to sleep before.
    barred: Option<String>,
}

impl Idleness {
    /// Of a machine whose use nobody has looked at yet.
    pub(super) fn new(spec: &SleepSpec, usual: &Settings, kept: Option<&serde_json::Value>) -> Self {
        Self {
            mind: Mind::new(spec.settings(usual), zone(spec), kept),
            policy: IdlePolicy::new(spec),
            schedule: Schedule::new(&spec.keep, zone(spec)),
            report: None,
            keeps: Vec::new(),
            favour: None,
            is_asking: false,
            guest_asked: None,
            guest_silent: false,
            word: Word::None,
            setbacks: Setbacks::default(),
        }
    }

    /// The machine entered a state.
    pub(super) fn entered(&mut self, state: &State) {
        if *state == State::Active {
            self.policy.reset();
            self.guest_asked = None;
        } else {
            self.report = None;
            self.keeps.clear();
            self.word.forget();
            self.favour = None;
        }
    }

    /// All that keeps it awake whatever its use, besides its holds.
    pub(super) fn keeps(&self) -> Vec<Keep> {
        self.keeps.iter().cloned().chain(self.word.keep()).collect()
    }

    /// The report as it is shown: with what is wrong with the judgement.
    pub(super) fn shown(&self) -> Option<Verdict> {
        let mut shown = self.report.clone()?;
        shown.signals.extend(self.word.silence());
        Some(shown)
    }

    /// Are answers under way?
    pub(super) const fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// An asking came to its end, whatever that is.
    pub(super) const fn asked(&mut self) {
        self.is_asking = false;
    }
}

/// The time zone of a machine's schedule: its own, or the host's. It was known when the machine was created.
fn zone(spec: &SleepSpec) -> TimeZone {
    let named = spec.keep.timezone.as_deref().map(TimeZone::get);
    named.and_then(Result::ok).unwrap_or_else(TimeZone::system)
}

/// Asks for all that the machine's use is judged by.
async fn ask(
    shared: Shared,
    instance: Arc<dyn Instance>,
    spec: Arc<MachineSpec>,
    links: Vec<(String, MacAddr)>,
    (ask_guest, ask_balloon): (bool, bool),
    is_last: bool,
) -> Result<Answers, String> {
    let asked = shared.clock.steady();
    let guest = async {
        let patience = tokio::time::timeout(GUEST_PATIENCE, instance.inside());
        if ask_guest { Some(patience.await.ok().flatten()) } else { None }
    };
    let flows = join_all(links.iter().map(|(bridge, mac)| shared.presence.connections(bridge, *mac)));
    // The guest first: what asking it costs is in the counters of all samples alike.
    let guest = guest.await;
    let inhibitors = shared.inhibitors.of(&spec.name, is_last);
    // One after the other: while a hypervisor answers one question it may tell less to the next.
    let numbers = async {
        let counters = instance.counters().await;
        let faults = if ask_balloon { Some(instance.faults().await) } else { None };
        (counters, faults, instance.viewers().await)
    };
    let ((counters, faults, viewers), flows, inhibitors) = tokio::join!(numbers, flows, inhibitors);
    let counters = counters.map_err(|e| chain(&e))?;
    let barred = if is_last { abilities(&*instance).await.why_not(spec.sleep.depth) } else { None };
    let connections = flows.into_iter().flatten().map(|followed| connection(&followed)).collect();
    let look = Look { asked, is_last };
    Ok(Answers { look, counters, connections, guest, faults, viewers, inhibitors, barred })
}

const fn connection(followed: &Followed) -> Connection {
    let Followed { flow: Flow { local, remote, snd_nxt, rcv_nxt, heard, .. }, closing } = *followed;
    Connection { local, remote, numbers: (snd_nxt, rcv_nxt), heard, open: !closing }
}

impl Driver {
    /// Asks how the machine is used, unless that is being asked.
    pub(super) fn sample(&mut self) {
        if !self.idleness.is_asking && *self.life.state() == State::Active && self.life.settled() {
            self.ask(false);
        }
    }

    /// Looks whether the machine can make room for others; after what is being asked.
    pub(super) fn sample_for_favour(&mut self) {
        if !self.idleness.is_asking {
            self.ask(true);
        }
    }

    fn ask(&mut self, is_last: bool) {
        let now = self.now();
        let every = ASK_GUEST.max(self.shared.config.sample_interval.get());
        let is_time = self.idleness.guest_asked.is_none_or(|at| now < at || now.since(at) >= every);
        let ask_guest = self.idleness.policy.asks_guest() && (is_time || is_last);
        if ask_guest {
            self.idleness.guest_asked = Some(now);
        }
        self.idleness.is_asking = true;
        let (instance, spec) = (Arc::clone(&self.subject.instance), Arc::clone(&self.subject.spec));
        // As they are now: others may have changed what its file says.
        let links = self.ports.iter().map(|port| (port.bridge.clone(), port.mac)).collect();
        let of_guest = (ask_guest, self.idleness.policy.asks_balloon());
        let asking = ask(self.shared.clone(), instance, spec, links, of_guest, is_last);
        self.spawn(Job::Sample, async move { Finished::Sample(Box::new(asking.await)) });
    }

    /// Takes in the answers; puts the machine to sleep if it is due and they are the last ones.
    pub(super) fn judge_idleness(&mut self, answers: Answers) {
        if *self.life.state() != State::Active {
            return;
        }
        let Answers { look, counters, connections, guest, faults, viewers, inhibitors, barred } = answers;
        let now = self.now();
        if look.is_last {
            self.tell_barred(barred);
        }
        self.idleness.policy.connections(&connections, now);
        if let Some(inside) = guest {
            self.tell_guest_silent(inside.is_none());
            let word = inside.map(|Inside { at, users, load }| GuestWord { at, users, load });
            self.idleness.policy.guest(word, now);
        }
        if let Some(faults) = faults {
            let faults = faults.map(|Faults { at, count }| idle::Faults { at, count });
            self.idleness.policy.faults(faults, now);
        }
        self.idleness.policy.viewers(viewers, now);
        self.shared.meters.tell(&self.subject.spec.name, meter::Event::Counter(counters.cpu));
        let Counters { at, cpu, network_bytes, disk_bytes } = counters;
        let verdict = self.idleness.policy.sample(Sample { at, cpu, network_bytes, disk_bytes });
        self.idleness.keeps = self.keeps(inhibitors, now);
        self.idleness.mind.saw(&verdict);
        self.keep_mind(now);
        self.idleness.is_asking = self.ask_policy(&verdict, look);
        self.idleness.report = Some(verdict);
        if !self.idleness.is_asking {
            self.sleep_if_idle(look);
        }
    }

    /// Puts the machine to sleep if its idle time is over, or others need its room; see [`Driver::sleep_by`].
    pub(super) fn sleep_if_idle(&mut self, look: Look) {
        let now = self.now();
        let plan =
            self.idleness.report.as_ref().and_then(|verdict| self.idleness.mind.sleep_at(verdict, now));
        if plan.is_some_and(|plan| plan.at <= now) {
            self.sleep_by(look, Event::Idle);
        }
        self.make_room_if_idle(look);
    }

    /// Puts the machine to sleep unless something keeps it awake whatever its use; after a last look.
    pub(super) fn sleep_by(&mut self, look: Look, event: impl FnOnce(Depth) -> Event) {
        let now = self.now();
        let is_held = self.journal.record().holds.blocking(now).next().is_some();
        let unaddressed = unaddressed(&self.subject.spec, &self.journal.record().learned);
        if *self.life.state() != State::Active
            || !self.idleness.keeps.is_empty()
            || is_held
            || unaddressed.all()
            || self.idleness.setbacks.stand(self.steady())
        {
            return;
        }
        if !look.is_last {
            self.ask(true);
        } else if self.took(look) <= self.age().min(FRESH) {
            self.event(event(self.subject.spec.sleep.depth));
        }
    }

    /// How long ago it was begun. If that is more than its age, the machine was in another state then.
    pub(super) fn took(&self, look: Look) -> Duration {
        self.steady().saturating_sub(look.asked)
    }

    /// Takes in what its platform says of its sleep, and says so once.
    fn tell_barred(&mut self, barred: Option<String>) {
        let steady = self.steady();
        let was = self.idleness.setbacks.looked(barred.clone(), steady);
        if let Some(why) = barred
            && !was
        {
            let depth = self.subject.spec.sleep.depth;
            self.warn(format!("it is idle, and cannot sleep at depth {depth}: {why}"));
        }
    }

    /// What keeps the machine awake at `now`, whatever its use; not its holds.
    fn keeps(&self, inhibitors: Vec<Keep>, now: Timestamp) -> Vec<Keep> {
        let sleep = &self.subject.spec.sleep;
        let least = sleep.keep.min_awake(sleep.idle_after);
        let left = least.checked_sub(self.age()).filter(|left| !left.is_zero());
        let awake = left.map(|left| {
            let span = humantime::format_duration(least);
            Keep { what: "min-awake", why: format!("awake for less than {span}"), until: Some(now + left) }
        });
        awake.into_iter().chain(self.idleness.schedule.keeps(now)).chain(inhibitors).collect()
    }

    /// What keeps the machine awake, as of the last report, and why it could not sleep; not its holds.
    pub(super) fn kept_awake(&self, now: Timestamp) -> Vec<Keep> {
        let mut keeps = self.idleness.keeps();
        if self.idleness.report.is_some() {
            // What its platform knows without being asked is told before it is due to sleep.
            let known = self.subject.instance.capabilities().why_not(self.subject.spec.sleep.depth);
            keeps.extend(self.idleness.setbacks.keeps(known, self.steady(), now));
        }
        keeps
    }

    /// When the machine goes to sleep by itself if nothing happens.
    pub(super) fn outlook(&self, now: Timestamp) -> Option<Timestamp> {
        let record = self.journal.record();
        if unaddressed(&self.subject.spec, &record.learned).all() {
            return None;
        }
        let holds = record.holds.blocking(now);
        let holds = holds.map(|hold| Keep { what: "hold", why: String::new(), until: hold.until });
        let keeps: Vec<_> = holds.chain(self.kept_awake(now)).collect();
        let expected = self.idleness.mind.outlook(self.idleness.report.as_ref()?, now);
        self.idleness.schedule.outlook(expected, &keeps)
    }

    /// Says once that a guest that is to be asked does not answer.
    fn tell_guest_silent(&mut self, is_silent: bool) {
        if is_silent && !self.idleness.guest_silent {
            let why = "its guest agent does not answer, and sleep.users or sleep.load_below of its file \
                       need it: without an answer it counts as in use";
            self.warn(why.into());
        }
        self.idleness.guest_silent = is_silent;
    }

    /// When a sleeper is to be woken ahead.
    pub(super) fn wake_ahead_at(&self, now: Timestamp) -> Option<Timestamp> {
        let is_asleep = matches!(self.life.state(), State::Asleep { .. });
        let scheduled = || self.idleness.schedule.wake_at(self.since, now);
        let planned = || self.idleness.mind.wake_at().map(|plan| plan.at);
        is_asleep.then(|| scheduled().into_iter().chain(planned()).min()).flatten()
    }

    /// Makes what its policy knows durable with the next write of the record.
    pub(super) fn keep_mind(&mut self, now: Timestamp) {
        if let Some(kept) = self.idleness.mind.changes(now) {
            self.journal.change(|record| record.policy = Some(kept), None);
        }
    }

    /// Wakes a sleeper whose time it is.
    pub(super) fn wake_ahead(&mut self) {
        let now = self.now();
        let is_asleep = matches!(self.life.state(), State::Asleep { .. });
        if is_asleep {
            self.idleness.mind.plan_anew(now);
        }
        if self.wake_ahead_at(now).is_none_or(|at| at > now) {
            return self.forget_ahead();
        }
        if self.room.is_wanted() {
            return;
        }
        let planned = self.idleness.mind.wake_at().filter(|plan| plan.at <= now);
        let spans = &self.subject.spec.sleep.keep.stay_awake;
        let why = planned.map_or_else(|| format!("stay_awake {spans}"), |plan| plan.why.clone());
        self.wanted(Cause::Ahead(why));
    }
}
