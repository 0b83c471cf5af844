//! The engine: a plan of steps, the tasks that are unanswered, and what is known of the world.
//!
//! Each flow (sleep, undo, wake, stop) is a plan, written down in its own module. The engine starts
//! the next step when nothing is awaited; a failure, the guest's end or a wish for the machine
//! replaces the plan.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dormouse_types::{Depth, Timestamp};

use super::absent::Absent;
use super::look::{Look, is_of_platform};
use super::{Action, Cause, Event, Shape, SleepReason, State, Task};

/// How long after a failed write of the state it is tried again.
pub const JOURNAL_RETRY: Duration = Duration::from_secs(5);

/// One machine's life: fed with events and commands, it says what to do.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    pub(super) state: State,
    pub(super) shape: Shape,
    pub(super) plan: VecDeque<Step>,
    pending: BTreeMap<Task, Role>,
    /// What the pending `Journal` writes.
    writing: Option<State>,
    /// The first failure among the awaited tasks.
    pub(super) failure: Option<(Task, String)>,
    /// The guest or its process ended, and that is not yet dealt with.
    pub(super) ended: Option<Ended>,
    pub(super) wanted: Option<Cause>,
    /// The guest's end was noticed and fits the plan, which goes on.
    pub(super) gone: bool,
    pub(super) saved: SavedState,
    /// The disk may say that a saved state can be resumed from.
    pub(super) offered: bool,
    pub(super) touched: Touched,
    /// When to write the state again.
    owed: Option<Timestamp>,
    /// Nobody stands in for the sleeper.
    pub(super) absent: Option<Absent>,
    /// What others may have done.
    pub(super) look: Look,
    /// Why the next state is entered, where the states do not say so.
    pub(super) why: Option<String>,
    pub(super) now: Timestamp,
    pub(super) out: Vec<Action>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A task other than `Journal`, awaited.
    Do(Task),
    /// A durable write, awaited.
    Journal(State),
    /// Be in this state from now on.
    Enter(State),
    /// Go to sleep: the end of a plan.
    Settle(Depth, SleepReason),
}

/// What an unanswered task means to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A step of the plan.
    Awaited,
    /// A step of an earlier plan: awaited, its result is of no interest.
    Leftover,
    /// Not even awaited, except by a step of the same task.
    Abandoned,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It shut itself down.
    Shutdown,
    /// Its process ended; why.
    Died(String),
}

/// What is known of the saved state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SavedState {
    /// None of this sleep.
    None,
    /// There may be one, not known to be whole, or the guest may have run since.
    Doubtful,
    /// Written, not yet on stable storage.
    Written,
    /// Whole, on stable storage, and the guest did not run since.
    Whole,
}

/// What a sleep has touched, and an undo must put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) captured: bool,
    pub(super) stood_in: bool,
    pub(super) stopped: bool,
}

impl Lifecycle {
    /// A machine of a platform of this `shape` that is in `state`, with nothing going on; after a restart
    /// use [`Lifecycle::recover`].
    #[must_use]
    pub fn new(state: State, shape: Shape) -> Self {
        let offered = state.offers_saved_state();
        Self {
            shape,
            plan: VecDeque::new(),
            pending: BTreeMap::new(),
            writing: None,
            failure: None,
            ended: None,
            wanted: None,
            gone: false,
            saved: if offered { SavedState::Whole } else { SavedState::None },
            offered,
            touched: Touched::default(),
            owed: None,
            absent: None,
            look: Look::default(),
            why: None,
            now: Timestamp::default(),
            out: Vec::new(),
            state,
        }
    }

    /// Where the machine is in its life.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The tasks that were asked for and are not yet answered.
    #[must_use]
    pub fn pending(&self) -> BTreeSet<Task> {
        self.pending.keys().copied().collect()
    }

    /// Nothing is going on: no task is pending, no step is left and no write is owed.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.rests() && self.owed.is_none()
    }

    /// As [`Lifecycle::settled`], except that a write may still be owed, which is tried again until
    /// it succeeds.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.pending.is_empty() && self.plan.is_empty() && !self.is_looking()
    }

    /// When an [`Event::Tick`] is due; one that comes before does nothing. The clock may be set back
    /// meanwhile: give one at the latest each [`JOURNAL_RETRY`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.owed, self.absent_until(), self.look_due()].into_iter().flatten().min()
    }

    /// Takes in what happened at `now`; returns what to do, in order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Idle(depth) => self.rest(depth, SleepReason::Idle),
            Event::Sleep(depth, reason) => self.rest(depth, reason),
            Event::Deeper(depth) => self.deepen(depth),
            Event::Wanted(cause) => self.want(cause),
            Event::Done(task, result) => self.done(task, result),
            Event::Unanswered(task, why) => self.unanswered(task, why),
            Event::Spawned => self.spawned(),
            Event::GuestShutdown => self.end(Ended::Shutdown),
            Event::Exited(why) => self.end(Ended::Died(why)),
            Event::Lost(why) => self.lost(why),
            Event::Partly(why) => self.stands_in_partly(why),
            Event::Back => self.hasten_stand_in(),
            Event::Changed(by) => self.changed(by),
            Event::Undefined(by) => self.undefined(by),
            Event::Redefined => self.redefined(),
            Event::Found(seen) => self.found(seen),
            Event::Tick => {}
        }
        self.run(now)
    }

    /// Goes on as far as can be; returns what to do.
    pub(super) fn run(&mut self, now: Timestamp) -> Vec<Action> {
        self.now = now;
        while self.advance() {}
        if self.rests() && self.owed.is_some_and(|due| is_due(due, JOURNAL_RETRY, now)) {
            self.start(Step::Journal(self.state.clone()));
        }
        if let Some(step) = self.owed_stand_in() {
            self.start(step);
        }
        std::mem::take(&mut self.out)
    }

    /// One step further; false when there is none to take now.
    fn advance(&mut self) -> bool {
        if self.pending.values().any(|role| *role != Role::Abandoned) {
            return false;
        }
        if self.waits_for_look() {
            return self.answers_meanwhile();
        }
        let alone = self.absent.is_some() && !self.is_partly_absent();
        let gone = self.gone || self.was_saved_for_good();
        if let Some(ended) = self.ended.take() {
            self.guest_ended(ended);
        } else if let Some((task, why)) = self.failure.take() {
            self.task_failed(task, why);
        } else if let Some(cause) =
            self.wanted.take_if(|_| Self::can_turn(&self.state, &self.plan, gone, alone))
        {
            match self.state {
                State::Asleep { depth } => self.wake(depth, cause),
                _ => self.undo(cause),
            }
        } else if let Some(step) = self.plan.pop_front_if(|step| !is_unanswered(step, &self.pending)) {
            self.start(step);
        } else {
            return false;
        }
        true
    }

    /// A sleeper is stood in for while its platform cannot be asked: goes on with that.
    fn answers_meanwhile(&mut self) -> bool {
        let is_harmless = |step: &mut Step| matches!(step, Step::Do(Task::StandIn) | Step::Journal(_));
        let sleeps = matches!(self.state, State::Asleep { .. });
        let next = self.plan.pop_front_if(|step| sleeps && is_harmless(step));
        next.is_some_and(|step| {
            self.start(step);
            true
        })
    }

    /// Can a wish for the machine be followed now?
    fn can_turn(state: &State, plan: &VecDeque<Step>, gone: bool, alone: bool) -> bool {
        match state {
            State::Settling { depth: Depth::Off, .. } => plan.contains(&Step::Do(Task::PowerDown)),
            State::Settling { .. } => !gone,
            State::Asleep { depth } => plan.is_empty() && (!alone || depth.keeps_process()),
            _ => false,
        }
    }

    fn start(&mut self, step: Step) {
        match step {
            Step::Enter(state) => self.enter(state),
            Step::Settle(depth, reason) => self.settle(depth, reason),
            Step::Journal(state) => {
                self.offered |= state.offers_saved_state();
                self.owed = None;
                self.writing = Some(state.clone());
                self.pending.insert(Task::Journal, Role::Awaited);
                self.out.push(Action::Journal(state));
            }
            Step::Do(task @ (Task::Resume | Task::Boot))
                if self.offered && self.saved != SavedState::None =>
            {
                let why = "the old saved state could neither be discarded nor be marked as used";
                self.failure = Some((task, why.into()));
            }
            Step::Do(task) => {
                self.touch(task);
                self.pending.insert(task, Role::Awaited);
                self.out.push(Action::Do(task));
            }
        }
    }

    /// Notes what a task changes from the moment it is asked for.
    fn touch(&mut self, task: Task) {
        match task {
            Task::Capture => self.touched.captured = true,
            Task::StandIn => self.touched.stood_in = true,
            Task::Pause | Task::Suspend => self.touched.stopped = true,
            Task::Save => {
                self.touched.stopped = true;
                self.saved = SavedState::Doubtful;
            }
            Task::Resume | Task::Boot => self.saved = self.saved.min(SavedState::Doubtful),
            _ => {}
        }
    }

    pub(super) fn done(&mut self, task: Task, result: Result<(), String>) {
        let Some(role) = self.pending.remove(&task) else { return };
        if result.is_ok() {
            self.note_done(task);
            self.look.answered();
        }
        if let (Err(why), Role::Awaited) = (result, role) {
            self.failure.get_or_insert((task, why));
            if self.shape.shared && is_of_platform(task) {
                self.look_now();
            }
        }
    }

    /// Its answer was lost: it may be done, and else is done again, unless its failure leaves a guest that runs.
    fn unanswered(&mut self, task: Task, why: String) {
        let is_awaited = self.pending.get(&task) == Some(&Role::Awaited);
        self.done(task, Err(why));
        let is_undone = matches!(self.state, State::Settling { .. });
        if is_awaited && self.shape.shared && is_of_platform(task) && !is_undone {
            self.look.unanswered();
        }
    }

    /// What is known of the world once a task is done.
    pub(super) fn note_done(&mut self, task: Task) {
        let ends = self.shape.save_ends_process;
        match task {
            Task::Save => self.saved = if ends { SavedState::Whole } else { SavedState::Written },
            Task::Load if ends => self.saved = SavedState::None,
            Task::Flush if self.saved == SavedState::Written => self.saved = SavedState::Whole,
            Task::DiscardState => self.saved = SavedState::None,
            Task::StandIn => self.stands_in(),
            Task::Journal => self.offered = self.writing.take().is_some_and(|s| s.offers_saved_state()),
            _ => {}
        }
    }

    /// The loading process exists: the write that follows the load need not wait for its end.
    fn spawned(&mut self) {
        let loading = self.pending.get(&Task::Load) == Some(&Role::Awaited);
        let next = self.plan.pop_front_if(|step| loading && matches!(step, Step::Journal(_)));
        if let Some(step) = next {
            self.start(step);
        }
    }

    /// Sleep that no user asked for: only if nothing else is going on.
    fn rest(&mut self, depth: Depth, reason: SleepReason) {
        if self.state == State::Active && self.plan.is_empty() && self.pending.is_empty() {
            self.settle(depth, reason);
        }
    }

    /// Something wants the machine; remembered until it can be followed.
    pub(super) fn want(&mut self, cause: Cause) {
        self.stay_awake();
        if matches!(self.state, State::Settling { .. } | State::Asleep { .. }) && self.wanted.is_none() {
            self.wanted = Some(cause);
            self.hurry();
            self.hasten_stand_in();
        }
    }

    pub(super) fn hurry(&mut self) {
        if self.is_pending(Task::Save) || self.is_pending(Task::Flush) {
            self.out.push(Action::Hurry);
        }
    }

    /// The guest or its process ended: dealt with when the awaited tasks are answered.
    fn end(&mut self, ended: Ended) {
        self.look_is_stale();
        if matches!(self.state, State::Active | State::Suspended { .. }) {
            self.guest_ended(ended);
        } else if self.pending.get(&Task::PowerDown) == Some(&Role::Awaited) {
            self.gone = true;
        } else if self.has_process() && self.ended.is_none() {
            self.ended = Some(ended);
            self.abandon(Task::AwaitGuest);
        }
    }

    /// Should there be a process, as far as the plan has come?
    fn has_process(&self) -> bool {
        let to_come = |task| self.plan.contains(&Step::Do(task));
        match self.state {
            State::Undoing { .. } => true,
            State::Asleep { depth } => depth.keeps_process(),
            State::Settling { depth: Depth::Off, .. } => to_come(Task::PowerDown),
            State::Settling { .. } => !self.was_saved_for_good(),
            State::Waking { .. } => !to_come(Task::Load) && !to_come(Task::Boot),
            _ => false,
        }
    }

    /// Is it on its way to sleep, and has its save ended its process?
    pub(super) fn was_saved_for_good(&self) -> bool {
        self.shape.save_ends_process
            && matches!(self.state, State::Settling { depth: Depth::Saved, .. })
            && self.is_whole()
    }

    fn abandon(&mut self, task: Task) {
        if let Some(role) = self.pending.get_mut(&task) {
            *role = Role::Abandoned;
        }
    }

    /// Is `task` unanswered?
    pub(super) fn is_pending(&self, task: Task) -> bool {
        self.pending.contains_key(&task)
    }

    /// Another flow: the machine is in state `to` at once, and the plan is `steps`, after whatever
    /// the old plan still had to tear down.
    pub(super) fn begin(&mut self, to: State, steps: impl IntoIterator<Item = Step>) {
        self.pending
            .values_mut()
            .filter(|role| **role == Role::Awaited)
            .for_each(|role| *role = Role::Leftover);
        self.abandon(Task::AwaitGuest);
        self.abandon(Task::PowerDown);
        (self.failure, self.ended, self.wanted, self.gone) = (None, None, None, false);
        (self.owed, self.absent) = (None, None);
        let at_rest = matches!(
            self.state,
            State::Active | State::Stopped | State::Suspended { .. } | State::Failed { .. }
        );
        self.plan.retain(|step| at_rest && matches!(step, Step::Do(_)));
        self.enter(to);
        self.plan.extend(steps);
    }

    pub(super) fn enter(&mut self, to: State) {
        if to == State::Active {
            (self.saved, self.touched) = (SavedState::None, Touched::default());
        }
        if self.state != to {
            let from = std::mem::replace(&mut self.state, to.clone());
            self.out.push(Action::Announce { from, to, why: self.why.take() });
        }
    }

    /// A write that only records what is so already failed: it is due again later.
    pub(super) fn owe_journal(&mut self) {
        self.owed = Some(self.now + JOURNAL_RETRY);
    }
}

/// Has `due` come? Nothing is due in more than `span`: then the clock was set back.
pub(super) fn is_due(due: Timestamp, span: Duration, now: Timestamp) -> bool {
    due <= now || due.since(now) > span
}

/// Is the task of `step` still unanswered, though abandoned, from an earlier plan?
fn is_unanswered(step: &Step, pending: &BTreeMap<Task, Role>) -> bool {
    matches!(step, Step::Do(task) if pending.contains_key(task))
}

/// The steps that end every flow after which the guest runs.
pub(super) fn active() -> [Step; 2] {
    [Step::Enter(State::Active), Step::Journal(State::Active)]
}
