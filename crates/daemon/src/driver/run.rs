//! The driver's loop: messages, ends of tasks, and the clock, fed to the lifecycle one by one.

use std::{collections::HashMap, mem, net::IpAddr, pin::pin, sync::Arc, task::Poll, time::Duration};

use dormouse_api_types::{EventKind, Problem, ProblemKind};
use dormouse_machine::lifecycle::{Action, Cause, Event, JOURNAL_RETRY, Lifecycle, State, Task};
use dormouse_registry::{LastWake, Record, Revision, Transaction};
use dormouse_surrogate::Status;
use dormouse_types::{Depth, MacAddr, Timestamp};
use dormouse_wire::Persona;
use tokio::{
    sync::{oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    End, Ends, Message, Shared, Subject,
    idleness::{Answers, Idleness},
    journal::Journal,
    orders::{Goal, Reply, Waiter},
    story::{Story, reason_of},
    tasks::{Context, Output},
    view::{View, unaddressed},
};
use crate::{
    chain::chain,
    events::Draft,
    fault::{Edge, Step, state_word},
};

/// Addresses of each family that are learned of one interface at most: those seen last stay.
const LEARNED: usize = 8;

/// Who waits for a write of the record.
#[derive(Debug)]
pub(super) enum Ticket {
    /// The lifecycle.
    State,
    /// Whoever placed a hold, by its number.
    Hold(u64),
}

/// What a future of this driver was for.
#[derive(Clone, Copy, Debug)]
enum Job {
    Task(Task),
    Write,
    Sample,
}

/// What came of it.
enum Finished {
    Task(Task, Duration, Result<Output, String>),
    Write(Result<Revision, dormouse_registry::Error>),
    Sample(Box<Result<Answers, String>>),
}

/// One machine's driver.
pub(super) struct Driver {
    pub(super) shared: Shared,
    pub(super) subject: Subject,
    pub(super) life: Lifecycle,
    pub(super) journal: Journal<Ticket>,
    pub(super) since: Timestamp,
    pub(super) waiters: Vec<Waiter>,
    pub(super) patience: Duration,
    /// Why the machine is in its state.
    reason: Option<String>,
    /// What last turned a sleep round, for who asked for the sleep.
    pub(super) undone: Option<String>,
    /// Who asked that the machine be forgotten, once it can be.
    pub(super) removal: Option<Reply>,
    pub(super) story: Story,
    pub(super) idleness: Idleness,
    last_status: Option<Status>,
    /// Others were told that nobody answers for it.
    absence_told: bool,
    /// Ready once the last interruptible task has begun.
    begun: Option<oneshot::Receiver<()>>,
    ports: Vec<dormouse_platform::Port>,
    heard: watch::Sender<u64>,
    jobs: JoinSet<Finished>,
    names: HashMap<Id, Job>,
    ends: Ends,
}

impl Driver {
    pub(super) fn new(shared: Shared, subject: Subject, ends: Ends) -> Self {
        let record = subject.record.clone();
        let reason = record.reason.clone();
        Self {
            life: Lifecycle::new(record.state.clone(), subject.instance.shape()),
            since: record.since,
            journal: Journal::new(record, subject.revision),
            waiters: Vec::new(),
            patience: shared.config.sleep.stop_timeout.get(),
            reason,
            undone: None,
            removal: None,
            story: Story::new(shared.clock.now()),
            idleness: Idleness::new(&subject.spec.sleep),
            last_status: None,
            absence_told: false,
            begun: None,
            ports: Vec::new(),
            heard: watch::Sender::new(0),
            jobs: JoinSet::new(),
            names: HashMap::new(),
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

    /// Removes the machine from the registry. It is stopped and its driver's last act: nothing
    /// else is to happen meanwhile.
    async fn forget_for(&mut self, reply: Reply) -> bool {
        let name = self.subject.spec.name.clone();
        let removed = self.subject.instance.erase().await.map_err(|e| chain(&e));
        let transaction = Transaction::remove(self.journal.expect(), name.clone());
        let removed = match removed {
            Ok(()) => self.shared.registry.commit(transaction).await.map_err(|e| chain(&e)),
            Err(why) => Err(why),
        };
        let answer =
            removed.map_err(|why| Problem::new(ProblemKind::Failed, format!("cannot remove {name}: {why}")));
        let is_gone = answer.is_ok();
        reply.removed(answer.map(drop));
        is_gone
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

    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Order { order, wait, reply } => self.order(order, wait, reply),
            Message::Remove { force, reply } => self.remove(force, reply),
            Message::Presence(notice) => self.presence_notice(notice),
            Message::Platform(notice) => self.platform_notice(notice),
        }
    }

    fn platform_notice(&mut self, notice: dormouse_platform::Notice) {
        use dormouse_platform::Notice;
        match notice {
            Notice::Spawned(_) => self.event(Event::Spawned),
            Notice::GuestShutdown(_) => self.event(Event::GuestShutdown),
            Notice::Exited(_, why) => self.event(Event::Exited(why)),
            Notice::Changed(..) | Notice::Redefined(_) | Notice::Undefined(..) | Notice::Unreachable(..) => {}
        }
    }

    fn presence_notice(&mut self, notice: dormouse_surrogate::Notice) {
        use dormouse_surrogate::Notice;
        match notice {
            Notice::Wake { frame, .. } => self.wanted(Cause::Packet(frame)),
            Notice::Heard { .. } => self.heard.send_modify(|count| *count += 1),
            Notice::Learned { mac, addresses, .. } => self.learned(mac, &addresses),
            Notice::BridgeLost { bridge, why } => {
                let why = format!("bridge {bridge} is lost: {why}");
                self.event(Event::Lost(why.clone()));
                if self.life.absent().is_none() {
                    self.warn(why);
                }
            }
            Notice::BridgeBack { .. } => self.event(Event::Back),
            Notice::Persona { mac, persona, .. } => self.persona(mac, *persona),
        }
    }

    fn learned(&mut self, mac: MacAddr, addresses: &[IpAddr]) {
        let known = self.journal.record().learned.get(&mac).cloned().unwrap_or_default();
        let seen = seen_last(&known, addresses);
        if seen == known {
            return;
        }
        tracing::info!(machine = %self.subject.spec.name, %mac, ?addresses, "learned addresses");
        self.journal.change(|record| drop(record.learned.insert(mac, seen)), None);
    }

    /// Keeps what an interface is on its network, so that a later daemon can go on being it.
    fn persona(&mut self, mac: MacAddr, persona: Persona) {
        let is_ours = self.subject.spec.interfaces.iter().any(|interface| interface.mac == mac);
        let before = self.journal.record().personas.get(&mac);
        if !is_ours || before == Some(&persona) {
            return;
        }
        // Who got another lease has the address of the old one no longer.
        let given_up = before.and_then(|before| persona.given_up_since(before));
        self.journal.change(
            |record| {
                if let (Some(old), Some(learned)) = (given_up, record.learned.get_mut(&mac)) {
                    learned.retain(|address| *address != old);
                }
                record.personas.insert(mac, persona);
            },
            None,
        );
    }

    /// Something wants the machine to run.
    pub(super) fn wanted(&mut self, cause: Cause) {
        self.story.wanted(self.now());
        self.event(Event::Wanted(cause));
    }

    /// Feeds the lifecycle.
    pub(super) fn event(&mut self, event: Event) {
        tracing::debug!(machine = %self.subject.spec.name, ?event);
        let actions = self.life.handle(event, self.now());
        self.act(actions);
    }

    /// Carries out what the lifecycle wants, in its order.
    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            tracing::debug!(machine = %self.subject.spec.name, ?action);
            match action {
                Action::Journal(state) => {
                    let reason = reason_of(&state).or_else(|| self.reason.clone());
                    self.journal.state(state, reason, self.since, Ticket::State);
                    self.write();
                }
                Action::Do(task) => self.start(task),
                Action::Hurry => self.hurry(),
                Action::Announce { from, to } => self.announce(from, to),
            }
        }
    }

    /// Interrupts what is being saved or flushed, once that has begun: earlier it would not be noticed.
    fn hurry(&mut self) {
        let instance = Arc::clone(&self.subject.instance);
        let begun = self.begun.take();
        tokio::spawn(async move {
            if let Some(begun) = begun {
                // An error says that the task has ended.
                let _ = begun.await;
            }
            instance.hurry().await;
        });
    }

    fn announce(&mut self, from: State, to: State) {
        let now = self.now();
        self.since = now;
        // Whoever still waits to hear the guest waits in vain in the new state.
        self.heard.send_modify(|count| *count += 1);
        self.note(&from, &to, now);
        self.story.announce(&self.subject.spec.name, from, to, now, &self.shared.events);
    }

    /// What a change of state means to the record, to idleness, and to who waits.
    fn note(&mut self, from: &State, to: &State, now: Timestamp) {
        // A state in which a flow ends keeps the flow's reason.
        match reason_of(to) {
            None if *to != State::Stopped => {}
            reason => self.reason = reason,
        }
        if let State::Undoing { .. } | State::Waking { .. } = to {
            self.undone = reason_of(to);
        }
        if let (State::Waking { cause, .. } | State::Undoing { cause }, State::Active) = (from, to) {
            let took = Some(now.since(self.story.caused()));
            let wake = LastWake { cause: cause.clone(), at: self.story.caused(), took };
            self.journal.change(|record| record.last_wake = Some(wake), None);
        }
        self.page_out(to);
        self.idleness.entered(to);
    }

    /// The memory of who sleeps paused is given back beside everything else: nobody waits for it.
    pub(super) fn page_out(&self, state: &State) {
        if !matches!(state, State::Asleep { depth: Depth::Paused | Depth::Pmsuspended }) {
            return;
        }
        let (instance, name) = (Arc::clone(&self.subject.instance), self.subject.spec.name.clone());
        tokio::spawn(async move {
            match instance.page_out().await {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(machine = %name, bytes, "the host has its memory back"),
                Err(error) => {
                    tracing::warn!(machine = %name, error = chain(&error), "the host does not get its memory back");
                }
            }
        });
    }

    fn start(&mut self, task: Task) {
        let context = Context {
            shared: self.shared.clone(),
            instance: Arc::clone(&self.subject.instance),
            spec: Arc::clone(&self.subject.spec),
            learned: self.journal.record().learned.clone(),
            personas: self.journal.record().personas.clone(),
            patience: self.patience,
            heard: self.heard.subscribe(),
            detach: matches!(self.life.state(), State::Stopping | State::Stopped),
            will_boot: matches!(
                self.life.state(),
                State::Settling { depth: Depth::Off, .. }
                    | State::Asleep { depth: Depth::Off }
                    | State::Waking { from: Some(Depth::Off), .. }
            ),
        };
        let (begin, begun) = oneshot::channel();
        if matches!(task, Task::Save | Task::Flush) {
            self.begun = Some(begun);
        }
        let future = async move {
            let started = Instant::now();
            let mut work = pin!(context.carry_out(task));
            let first = futures::poll!(&mut work);
            let _ = begin.send(());
            let result = match first {
                Poll::Ready(result) => result,
                Poll::Pending => work.await,
            };
            Finished::Task(task, started.elapsed(), result)
        };
        let id = self.jobs.spawn(future).id();
        self.names.insert(id, Job::Task(task));
    }

    /// Writes the record if there is something to write and no write is under way.
    pub(super) fn write(&mut self) {
        let Some(transaction) = self.journal.next() else { return };
        let state = self.journal.written_state().map(state_word);
        let future = write(self.shared.clone(), transaction, state);
        let id = self.jobs.spawn(async move { Finished::Write(future.await) }).id();
        self.names.insert(id, Job::Write);
    }

    /// Asks how the machine is used.
    pub(super) fn spawn_sample(
        &mut self,
        asking: impl Future<Output = Result<Answers, String>> + Send + 'static,
    ) {
        let id = self.jobs.spawn(async move { Finished::Sample(Box::new(asking.await)) }).id();
        self.names.insert(id, Job::Sample);
    }

    fn finished(&mut self, ended: Result<(Id, Finished), JoinError>) {
        match ended {
            Ok((id, finished)) => {
                self.names.remove(&id);
                self.take(finished);
            }
            Err(error) => {
                // A fault in this program: the step has failed, the machine's life goes on.
                let why = format!("a fault in dormoused: {error}");
                match self.names.remove(&error.id()) {
                    Some(Job::Task(task)) => self.take(Finished::Task(task, Duration::ZERO, Err(why))),
                    Some(Job::Write) => self.take(Finished::Write(Err(dormouse_registry::Error::Closed))),
                    Some(Job::Sample) => self.take(Finished::Sample(Box::new(Err(why)))),
                    None => {}
                }
            }
        }
    }

    fn take(&mut self, finished: Finished) {
        match finished {
            Finished::Task(task, took, Ok(output)) => {
                self.story.task(task, took, &output, self.now());
                self.last_status = output.status.or(self.last_status.take());
                self.ports = output.ports.unwrap_or(mem::take(&mut self.ports));
                if matches!(task, Task::StandIn | Task::Release | Task::Watch) {
                    self.is_recovered();
                }
                if task == Task::Boot {
                    self.forget_presence();
                }
                self.event(match output.unanswered {
                    Some(why) => Event::Partly(why),
                    None => Event::Done(task, Ok(())),
                });
            }
            Finished::Task(task, _, Err(why)) => self.failed(task, why),
            Finished::Write(result) => self.written(&result),
            Finished::Sample(result) => {
                self.idleness.asked();
                match *result {
                    Ok(answers) => self.judge_idleness(answers),
                    Err(why) => self.warn(format!("cannot judge whether it is idle: {why}")),
                }
            }
        }
    }

    /// What boots afresh may have other addresses, and has no connections: it will tell.
    fn forget_presence(&mut self) {
        let record = self.journal.record();
        if !(record.learned.is_empty() && record.personas.is_empty()) {
            let forget = |record: &mut Record| {
                record.learned.clear();
                record.personas.clear();
            };
            self.journal.change(forget, None);
        }
    }

    fn failed(&mut self, task: Task, why: String) {
        let warning = format!("cannot {task}: {why}");
        self.event(Event::Done(task, Err(why)));
        // A sleeper without its bridge is told of once, not at every try.
        if task == Task::StandIn && self.life.absent().is_some() {
            tracing::debug!(machine = %self.subject.spec.name, "{warning}");
        } else {
            self.warn(warning);
        }
    }

    fn written(&mut self, result: &Result<Revision, dormouse_registry::Error>) {
        let why = result.as_ref().err().map(|error| chain(error));
        if let Some(why) = &why {
            self.warn(format!("its record is not durable: {why}"));
        }
        for ticket in self.journal.done(result) {
            match (ticket, &why) {
                (Ticket::State, why) => {
                    self.event(Event::Done(Task::Journal, why.clone().map_or(Ok(()), Err)));
                }
                (Ticket::Hold(id), Some(why)) => self.hold_failed(id, why),
                (Ticket::Hold(_), None) => {}
            }
        }
        self.write();
    }

    fn has_deadline(&self) -> bool {
        self.next_due().is_some()
    }

    fn next_due(&self) -> Option<Timestamp> {
        let holds = self.journal.record().holds.next_deadline();
        let ahead = self.wake_ahead_at(self.now());
        self.life.next_deadline().into_iter().chain(holds).chain(ahead).min()
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
        }
        self.wake_ahead();
        // Whether it is due, after all that the clock may have done, the lifecycle knows.
        if self.life.next_deadline().is_some() {
            self.event(Event::Tick);
        }
    }

    /// After whatever happened: what is settled, what is to be written, what others may see.
    fn after_change(&mut self) {
        self.write();
        let settled = self.life.settled() && self.journal.is_idle();
        if self.life.settled() {
            self.story.tell_pending(&self.subject.spec.name, self.now(), &self.shared.events);
        }
        self.tell_absence();
        self.ends.view.send_replace(self.view(settled));
        if settled {
            self.is_recovered();
            self.answer_waiters();
        } else if self.life.rests() {
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
        view.idle.clone_from(&self.idleness.report);
        view.keeps.clone_from(&self.idleness.keeps);
        view.sleeps_at = self.outlook(self.now());
        view.last_status.clone_from(&self.last_status);
        view.absent = self.life.absent().map(str::to_owned);
        view.unaddressed = unaddressed(&self.subject.spec, &self.journal.record().learned);
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

/// The addresses `known` of an interface and those just `seen`: of each family the ones seen last, in
/// that order.
fn seen_last(known: &[IpAddr], seen: &[IpAddr]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = known.iter().filter(|address| !seen.contains(address)).copied().collect();
    for address in seen {
        all.retain(|known| known != address);
        all.push(*address);
    }
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = all.into_iter().partition(IpAddr::is_ipv4);
    for family in [&mut v4, &mut v6] {
        family.drain(..family.len().saturating_sub(LEARNED));
    }
    v4.append(&mut v6);
    v4
}

async fn write(
    shared: Shared,
    transaction: Transaction,
    state: Option<&'static str>,
) -> Result<Revision, dormouse_registry::Error> {
    let step = state.map(Step::Journal);
    if let Some(step) = step {
        shared.fault.reach(step, Edge::Before);
    }
    let revision = shared.registry.commit(transaction).await?;
    if let Some(step) = step {
        shared.fault.reach(step, Edge::After);
    }
    Ok(revision)
}
