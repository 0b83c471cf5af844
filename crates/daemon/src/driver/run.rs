//! The driver's loop: messages, ends of tasks, and the clock, fed to the lifecycle one by one.

use std::{collections::HashMap, time::Duration};

use dormouse_api_types::{EventKind, Problem, ProblemKind};
use dormouse_machine::lifecycle::{Event, JOURNAL_RETRY, Lifecycle, State};
use dormouse_registry::{Record, Transaction};
use dormouse_surrogate::Status;
use dormouse_types::Timestamp;
use tokio::{
    sync::{oneshot, watch},
    task::{Id, JoinSet},
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    End, Ends, Message, Shared, Subject,
    act::write,
    deeper::Age,
    idleness::Idleness,
    jobs::{Finished, Job},
    journal::Journal,
    orders::{Goal, Reply, Waiter},
    room::Room,
    story::Story,
    view::{View, unaddressed},
};
use crate::{chain::chain, events::Draft};

/// Who waits for a write of the record.
#[derive(Debug)]
pub(super) enum Ticket {
    /// The lifecycle.
    State,
    /// Whoever placed a hold, by its number.
    Hold(u64),
}

/// One machine's driver.
pub(super) struct Driver {
    pub(super) shared: Shared,
    pub(super) subject: Subject,
    pub(super) life: Lifecycle,
    pub(super) journal: Journal<Ticket>,
    pub(super) since: Timestamp,
    pub(super) age: Age,
    pub(super) waiters: Vec<Waiter>,
    pub(super) patience: Duration,
    /// Why the machine is in its state.
    pub(super) reason: Option<String>,
    /// What last turned the machine from where it was going, for who asked for that.
    pub(super) undone: Option<String>,
    /// What last failed in its state.
    pub(super) hitch: Option<String>,
    /// Who asked that the machine be forgotten, once it can be.
    pub(super) removal: Option<Reply>,
    pub(super) story: Story,
    pub(super) idleness: Idleness,
    pub(super) room: Room,
    pub(super) last_status: Option<Status>,
    /// Others were told that nobody answers for it.
    absence_told: bool,
    /// Ready once the last interruptible task has begun.
    pub(super) begun: Option<oneshot::Receiver<()>>,
    pub(super) ports: Vec<dormouse_platform::Port>,
    pub(super) heard: watch::Sender<u64>,
    pub(super) jobs: JoinSet<Finished>,
    pub(super) names: HashMap<Id, Job>,
    /// An earlier try to go deeper came to nothing; of the steady clock.
    pub(super) not_deeper_before: Option<Duration>,
    /// Since when and why the platform cannot be asked.
    pub(super) unreachable: Option<(Timestamp, String)>,
    /// The file that is to take the place of its own as soon as nothing is going on.
    pub(super) rewrite: Option<String>,
    ends: Ends,
}

impl Driver {
    pub(super) fn new(shared: Shared, subject: Subject, ends: Ends) -> Self {
        let record = subject.record.clone();
        let reason = record.reason.clone();
        let record_policy = record.policy.clone();
        Self {
            life: Lifecycle::new(record.state.clone(), subject.instance.shape()),
            since: record.since,
            age: Age::new(shared.clock.now().since(record.since), shared.clock.steady()),
            journal: Journal::new(record, subject.revision),
            waiters: Vec::new(),
            patience: shared.config.sleep.stop_timeout.get(),
            reason,
            undone: None,
            hitch: None,
            removal: None,
            story: Story::new(shared.clock.now()),
            idleness: Idleness::new(
                &subject.spec.sleep,
                shared.config.sleep.policy.settings(),
                record_policy.as_ref(),
            ),
            room: Room::default(),
            last_status: None,
            absence_told: false,
            begun: None,
            ports: Vec::new(),
            heard: watch::Sender::new(0),
            jobs: JoinSet::new(),
            names: HashMap::new(),
            not_deeper_before: None,
            unreachable: None,
            rewrite: None,
            ends,
            shared,
            subject,
        }
    }

    /// Drives the machine until it is removed or the daemon ends.
    ///
    /// Boxed, for a future has room for each place where a value is held, and thousands sleep.
    pub(super) async fn drive(mut self: Box<Self>) -> End {
        let mut ticks = None;
        if let Some(why) = self.idleness.mind.take_loss() {
            self.warn(why);
            self.keep_mind(self.now());
        }
        self.after_change();
        loop {
            // Thousands of sleepers do nothing at all.
            let runs = *self.life.state() == State::Active;
            if runs != ticks.is_some() {
                ticks = runs.then(|| self.ticks());
            }
            if let Some(reply) = self.removal.take()
                && Box::pin(self.forget_for(reply)).await
            {
                return End::Removed;
            }
            if self.can_be_rewritten()
                && let Some(file) = self.rewrite.take()
                && Box::pin(self.rewrite_as(file)).await
            {
                return End::Rewritten(Box::new(self.ends));
            }
            let deadline = self.deadline();
            tokio::select! {
                message = self.ends.mailbox.recv() => match message {
                    Some(message) => self.message(message),
                    None => return End::Closed,
                },
                Some(ended) = self.jobs.join_next_with_id() => self.finished(ended),
                () = tick(&mut ticks) => self.sample(),
                () = tokio::time::sleep_until(deadline), if self.has_deadline() => self.due(),
            }
            self.after_change();
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = tokio::time::interval(self.shared.config.sample_interval.get());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Removes the machine from the registry. It is stopped, or let go, and its driver's last act: nothing
    /// else is to happen meanwhile.
    async fn forget_for(&mut self, reply: Reply) -> bool {
        let name = self.subject.spec.name.clone();
        let left = match self.life.state() {
            State::Stopped => Ok(()),
            _ => self.shared.presence.dismiss(&name).await.map(drop).map_err(|e| chain(&e)),
        };
        let removed = match left {
            Ok(()) => self.subject.instance.erase().await.map_err(|e| chain(&e)),
            Err(why) => Err(why),
        };
        let transaction = Transaction::remove(self.journal.expect(), name.clone());
        let removed = match removed {
            Ok(()) => {
                let transaction = transaction.with_usage(self.shared.meters.close(&name));
                write(self.shared.clone(), transaction, None).await.map_err(|e| chain(&e))
            }
            Err(why) => Err(why),
        };
        let answer =
            removed.map_err(|why| Problem::new(ProblemKind::Failed, format!("cannot remove {name}: {why}")));
        let is_gone = answer.is_ok();
        if !is_gone {
            self.shared.meters.reopen(&name);
        }
        reply.removed(answer.map(drop));
        is_gone
    }

    /// A change is told once, however often it was found.
    pub(super) fn rewrite_later(&mut self, file: String, what: String) {
        if *self.rewrite.as_ref().unwrap_or(&self.journal.record().file) != file {
            self.warn(what);
            self.rewrite = Some(file);
        }
    }

    /// A machine that sleeps or changes its state is stood in for with the interfaces that it has there.
    fn can_be_rewritten(&self) -> bool {
        let rests = matches!(
            self.life.state(),
            State::Active | State::Stopped | State::Suspended { .. } | State::Failed { .. }
        );
        self.rewrite.is_some()
            && rests
            && self.life.settled()
            && self.journal.is_idle()
            && self.jobs.is_empty()
    }

    /// Makes `file` its machine file, durably: the driver's last act.
    async fn rewrite_as(&mut self, file: String) -> bool {
        let record = Record { file: file.clone(), ..self.journal.record().clone() };
        let transaction = Transaction::put(self.journal.expect(), record);
        match self.shared.registry.commit(transaction).await {
            Ok(_) => {
                self.ends.view.send_modify(|view| view.file.0 = file);
                true
            }
            Err(error) => {
                self.warn(format!("its new definition cannot be remembered: {}", chain(&error)));
                false
            }
        }
    }

    /// The next message; `None` when nobody has a handle any more.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        self.ends.mailbox.recv().await
    }

    /// Shows that what is shown may not be so.
    pub(super) fn show_unknown(&self, why: &str) {
        let mut view = self.view(false);
        view.reason = Some(format!("as it was last; {why}"));
        self.ends.view.send_replace(view);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn steady(&self) -> Duration {
        self.shared.clock.steady()
    }

    fn has_deadline(&self) -> bool {
        self.next_due().is_some()
    }

    fn next_due(&self) -> Option<Timestamp> {
        let holds = self.journal.record().holds.next_deadline();
        // What waits for room already is asked for again in its own time.
        let ahead = self.wake_ahead_at(self.now()).filter(|_| !self.room.is_wanted());
        let deeper = self.deeper_at().map(|(at, _)| at);
        self.life
            .next_deadline()
            .into_iter()
            .chain(holds)
            .chain(ahead)
            .chain(deeper)
            .chain(self.room.again())
            .min()
    }

    /// When to wake up for what is due: soon enough if the wall clock is set; and not at once, since
    /// what is due may have to wait for a task's end.
    fn deadline(&self) -> Instant {
        let now = self.now();
        let wait = self.next_due().map_or(Duration::MAX, |due| due.since(now));
        let most = self.life.next_deadline().map_or(Duration::from_secs(60), |_| JOURNAL_RETRY);
        Instant::now() + wait.clamp(Duration::from_millis(20), most)
    }

    fn due(&mut self) {
        let now = self.now();
        if self.journal.record().holds.next_deadline().is_some_and(|end| end <= now) {
            let mut ended = Vec::new();
            self.journal.change(|record| ended = record.holds.expire(now), None);
            self.tell_released(&ended, "its time is over");
            self.forget_holds();
        }
        self.wake_ahead();
        self.go_deeper();
        self.ask_again_for_room();
        // Whether it is due, after all that the clock may have done, the lifecycle knows.
        if self.life.next_deadline().is_some() {
            self.event(Event::Tick);
        }
    }

    /// After whatever happened: what is settled, what is to be written, what others may see.
    fn after_change(&mut self) {
        self.write();
        let waits = self.room.is_asked_for();
        let settled = self.life.settled() && self.journal.is_idle() && !waits;
        if self.life.settled() {
            self.story.tell_pending(&self.subject.spec.name, self.now(), &self.shared.events);
        }
        self.tell_absence();
        self.ends.view.send_replace(self.view(settled));
        self.room.is_seen();
        if settled {
            self.is_recovered();
            self.answer_waiters();
        } else if self.life.rests() && !waits {
            self.answer_disappointed();
        }
    }

    /// Says once that nobody answers for a sleeper, and once that somebody does again.
    fn tell_absence(&mut self) {
        let what = if self.life.is_partly_absent() {
            "not all of its interfaces are answered for"
        } else {
            "nobody answers for it"
        };
        let why = self.life.absent().map(|why| format!("{what}, until that can be: {why}"));
        let was_told = std::mem::replace(&mut self.absence_told, why.is_some());
        match why {
            Some(why) if !was_told => self.warn(why),
            None if was_told && matches!(self.life.state(), State::Asleep { .. }) => {
                let name = &self.subject.spec.name;
                tracing::info!(machine = %name, "is answered for again");
                let told = Draft::of(name, EventKind::Presence).cause(Some("is answered for again"));
                self.shared.events.publish(told);
            }
            _ => {}
        }
    }

    pub(super) fn view(&self, settled: bool) -> View {
        let mut view = View::of(self.journal.record());
        view.state = self.life.state().clone();
        view.since = self.since;
        view.reason.clone_from(&self.reason);
        view.taps = self.ports.iter().map(|port| (port.mac, port.tap.clone())).collect();
        view.idle = self.idleness.shown();
        view.keeps = self.kept_awake(self.now());
        let outlook = self.outlook(self.now()).map(|at| (at, self.subject.spec.sleep.depth));
        view.sleeps_at = outlook.or_else(|| self.deeper_at());
        view.plan = self.idleness.mind.words(self.life.state(), self.idleness.report.as_ref());
        view.wakes_at = self.wake_ahead_at(self.now());
        view.last_status.clone_from(&self.last_status);
        view.absent = self.life.absent().map(str::to_owned);
        view.unaddressed = unaddressed(&self.subject.spec, &self.journal.record().learned);
        view.unreachable.clone_from(&self.unreachable);
        view.no_room = self.room.why_none();
        view.settled = settled;
        view
    }

    pub(super) fn is_recovered(&mut self) {
        if let Some(recovered) = self.ends.recovered.take() {
            let _ = recovered.send(());
        }
    }

    /// Says that a step failed and the machine's life goes on.
    pub(super) fn warn(&self, why: String) {
        let name = &self.subject.spec.name;
        tracing::warn!(machine = %name, "{why}");
        self.shared.events.publish(Draft::of(name, EventKind::Warning).cause(Some(why)));
    }

    pub(super) fn wait(&mut self, goal: Goal, hold: Option<u64>, detail: String, reply: Reply) {
        let started = self.now();
        self.waiters.push(Waiter { goal, started, hold, detail, reply });
    }
}

/// The next tick; none comes where there is no clock.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}
