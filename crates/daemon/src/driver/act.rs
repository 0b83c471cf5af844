//! Carrying out what the lifecycle wants: tasks, writes, looks, and telling who listens.

use std::{pin::pin, sync::Arc, task::Poll};

use dormouse_machine::{
    lifecycle::{Action, Cause, Event, State, Task},
    meter,
};
use dormouse_registry::{LastWake, Revision, Transaction};
use dormouse_types::{Depth, Timestamp};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Shared,
    jobs::{Finished, Job},
    room::Wish,
    run::{Driver, Ticket},
    story::reason_of,
    tasks::Context,
};
use crate::{
    chain::chain,
    fault::{Edge, Step},
};

impl Driver {
    /// Something wants the machine to run.
    pub(super) fn wanted(&mut self, cause: Cause) {
        self.story.wanted(self.now());
        if self.needs_room() {
            self.ask_for_room(Wish::Wanted(cause));
        } else {
            self.event(Event::Wanted(cause));
        }
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
                Action::Announce { from, to, why } => self.announce(from, to, why),
                Action::Look => self.look_at_platform(),
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

    fn announce(&mut self, from: State, to: State, why: Option<String>) {
        let now = self.now();
        self.shared.meters.tell(&self.subject.spec.name, meter::Event::Entered(&to));
        self.entered(&from, &to, now);
        // Whoever still waits to hear the guest waits in vain in the new state.
        self.heard.send_modify(|count| *count += 1);
        self.note(&from, &to, why.clone(), now);
        self.story.announce(&self.subject.spec.name, from, to, why, now, &self.shared.events);
    }

    /// What a change of state means to the record, to idleness, and to who waits.
    fn note(&mut self, from: &State, to: &State, why: Option<String>, now: Timestamp) {
        let turned_by = self.hitch.take().or_else(|| why.clone());
        match (from, to) {
            (_, State::Undoing { .. } | State::Waking { .. }) => self.undone = reason_of(to),
            // Whatever fails on the way back.
            (State::Undoing { .. }, _) => {}
            _ => self.undone = turned_by.or(self.undone.take()),
        }
        // A state in which a flow ends keeps the flow's reason.
        match reason_of(to).or(why) {
            None if *to != State::Stopped => {}
            reason => self.reason = reason,
        }
        let steady = self.steady();
        match (from, to) {
            (State::Settling { .. }, State::Undoing { cause: Cause::Failure(why) }) => {
                self.idleness.setbacks.failed(why.clone(), steady);
            }
            (_, State::Asleep { .. }) => self.idleness.setbacks.slept(),
            _ => {}
        }
        if let (State::Waking { cause, .. } | State::Undoing { cause }, State::Active) = (from, to) {
            let took = Some(now.since(self.story.caused()));
            let wake = LastWake { cause: cause.clone(), at: self.story.caused(), took };
            self.journal.change(|record| record.last_wake = Some(wake), None);
        }
        self.page_out(to);
        self.idleness.entered(to);
        let caused = self.story.caused();
        self.idleness.mind.entered(from, to, caused, now);
        self.keep_mind(now);
        // Who goes to sleep, or deeper, is wanted all the same.
        if !matches!(to, State::Settling { .. } | State::Asleep { .. }) {
            self.room.give_up();
        }
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

    /// What a task that is given now has to know.
    pub(super) fn context(&self) -> Context {
        Context {
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
        }
    }

    fn start(&mut self, task: Task) {
        let context = self.context();
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
        self.spawn(Job::Task(task), future);
    }

    /// Asks the platform what is so.
    fn look_at_platform(&mut self) {
        let instance = Arc::clone(&self.subject.instance);
        let look = async move { Finished::Look(instance.observe().await.map_err(|e| chain(&e))) };
        self.spawn(Job::Look, look);
    }

    /// Writes the record if there is something to write and no write is under way.
    pub(super) fn write(&mut self) {
        let Some(transaction) = self.journal.next() else { return };
        let transaction = transaction.with_usage(self.shared.meters.post(&self.subject.spec.name));
        let state = self.journal.written_state().map(State::word);
        let future = write(self.shared.clone(), transaction, state);
        self.spawn(Job::Write, async move { Finished::Write(future.await) });
    }
}

pub(super) async fn write(
    shared: Shared,
    transaction: Transaction,
    state: Option<&'static str>,
) -> Result<Revision, dormouse_registry::Error> {
    let step = state.map(Step::Journal);
    if let Some(step) = step {
        shared.fault.reach(step, Edge::Before);
    }
    let postings: Vec<_> = transaction.postings().map(|p| (p.machine.clone(), p.account.clone())).collect();
    let revision = shared.registry.commit(transaction).await?;
    postings.iter().for_each(|(machine, account)| shared.meters.posted(machine, account));
    if let Some(step) = step {
        shared.fault.reach(step, Edge::After);
    }
    Ok(revision)
}
