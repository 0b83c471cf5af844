//! Looking: the platform is asked what is so, where others than Dormouse may have changed it.
//!
//! A look is asked for when nothing is awaited, and nothing begins before it is answered: so what was
//! seen is no older than the last step. It is due when others are said to have changed something, and when
//! a task of the platform failed, whose failure may be their doing, or may not be one: a connection that
//! breaks takes the answer with it. While the platform cannot be asked the machine stays as it is.

use std::time::Duration;

use dormouse_types::Timestamp;

use super::engine::{Lifecycle, SavedState, Step, is_due};
use super::{Action, Observed, Process, State, StateOnDisk, Task};

/// After what time a platform that could not be asked is asked again: at first, and at most, doubling
/// between. Its being back is told at once by [`super::Event::Changed`].
pub const LOOK_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How often in a row the answer to a task may be lost. A platform that goes away each time it is asked is
/// not asked for ever.
const LOST_ANSWERS: u8 = 3;

/// Who did it, if nobody can say.
const SOMEBODY: &str = "somebody, by its platform's own means";

/// What is to be looked at, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// When; nothing begins before it is done.
    due: Option<Timestamp>,
    /// It is asked for and not yet answered.
    asked: bool,
    /// Something happened since it was asked for: its answer says nothing.
    stale: bool,
    /// Who is said to have changed the machine.
    by: Option<String>,
    /// Why the platform cannot be asked.
    lost: Option<String>,
    /// The task that failed may be done: its answer was lost.
    unanswered: bool,
    /// How many answers were lost in a row.
    lost_answers: u8,
    /// Others removed the machine's definition.
    undefined: bool,
    /// The next span between two tries.
    wait: Duration,
    /// What was seen is so unlikely to last that it is looked at once more.
    doubted: bool,
    /// A process may have been made for a machine that sleeps on, because nobody could say whether it was.
    pub(super) may_be_made: bool,
}

/// What a look means to the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// All is as it should be.
    AsExpected,
    /// Others did something, and the lifecycle follows it.
    Yes,
    /// Others are about to do something, and it is not yet to be seen what: look again soon.
    NotYet,
    /// As [`Followed::NotYet`]; but if it is so the next time, it is meant so.
    Doubtful,
}

impl Look {
    /// A task's answer was lost.
    pub(super) fn unanswered(&mut self) {
        self.lost_answers = self.lost_answers.saturating_add(1);
        self.unanswered = self.lost_answers <= LOST_ANSWERS;
    }

    /// A task is done.
    pub(super) fn answered(&mut self) {
        self.lost_answers = 0;
    }
}

impl Lifecycle {
    /// Why the platform cannot be asked, since a task failed or others changed something.
    #[must_use]
    pub fn lost_platform(&self) -> Option<&str> {
        self.look.lost.as_deref()
    }

    /// Is a look under way, or due at once?
    pub(super) fn is_looking(&self) -> bool {
        self.look.asked || self.look.due.is_some_and(|due| due <= self.now)
    }

    /// When the platform is to be asked.
    pub(super) fn look_due(&self) -> Option<Timestamp> {
        self.look.due.filter(|_| !self.look.asked)
    }

    /// Others changed something, or the platform is back.
    pub(super) fn changed(&mut self, by: String) {
        self.look.by = Some(by);
        self.look_now();
    }

    /// Others removed its definition. A guest that runs goes on all the same.
    pub(super) fn undefined(&mut self, by: String) {
        if !self.look.undefined {
            self.look.undefined = true;
            self.changed(by);
        }
    }

    /// There is a definition.
    pub(super) fn redefined(&mut self) {
        self.look.undefined = false;
    }

    /// Is there nothing to start any more?
    #[must_use]
    pub fn is_undefined(&self) -> bool {
        self.look.undefined
    }

    /// To be asked as soon as nothing is awaited.
    pub(super) fn look_now(&mut self) {
        self.look.due = Some(self.now);
        self.look.stale = self.look.asked;
    }

    /// What is being looked at has changed meanwhile.
    pub(super) fn look_is_stale(&mut self) {
        self.look.stale = self.look.asked;
    }

    /// Asks for the look that is due, and says whether the plan has to wait for it.
    pub(super) fn waits_for_look(&mut self) -> bool {
        let Some(due) = self.look.due else { return self.look.asked };
        if !self.look.asked && is_due(due, LOOK_RETRY.1, self.now) {
            self.look.asked = true;
            self.out.push(Action::Look);
        }
        true
    }

    /// The platform's answer.
    pub(super) fn found(&mut self, seen: Result<Observed, String>) {
        if !std::mem::take(&mut self.look.asked) {
            return;
        }
        self.look.due = None;
        if std::mem::take(&mut self.look.stale) {
            return self.look_now();
        }
        match seen {
            Ok(seen) => self.judge(seen),
            Err(why) => self.cannot_look(why),
        }
    }

    fn look_again(&mut self, wait: Duration) {
        self.look.due = Some(self.now + wait);
    }

    fn cannot_look(&mut self, why: String) {
        let (first, most) = LOOK_RETRY;
        let wait = self.look.wait.clamp(first, most);
        self.look.wait = wait * 2;
        self.look.lost = Some(why);
        self.look_again(wait);
        if matches!(self.failure, Some((Task::Load | Task::Boot, _))) {
            self.sleep_until_seen();
        }
    }

    /// A machine that was to be woken sleeps on, until the platform can be asked: then it wakes.
    fn sleep_until_seen(&mut self) {
        let State::Waking { from: Some(depth), cause, .. } = self.state.clone() else { return };
        let asleep = State::Asleep { depth };
        self.begin(asleep.clone(), [Step::Do(Task::StandIn), Step::Journal(asleep)]);
        self.wanted = Some(cause);
        self.look.may_be_made = true;
    }

    fn judge(&mut self, seen: Observed) {
        let was_lost = self.look.lost.take().is_some() | std::mem::take(&mut self.look.unanswered);
        self.look.wait = Duration::ZERO;
        self.note_saved_state(seen);
        if seen.process != Process::Absent {
            // It was started again since.
            (self.ended, self.gone) = (None, false);
        }
        let failure = self.failure.take_if(|(task, _)| !is_done(*task, seen, was_lost));
        if let Some((task, _)) = self.failure.take() {
            // Others may have gone on from there.
            self.note_done(task);
        }
        let by = self.look.by.take();
        // Of the platform it is still to be done; another task's failure is judged afterwards.
        let (failure, other): (Option<_>, _) = match failure {
            Some((task, _)) if !is_of_platform(task) => (None, failure),
            failure => (failure, None),
        };
        if by.is_none()
            && seen.process == Process::Still
            && matches!(failure, Some((Task::Pause | Task::Suspend | Task::Save, _)))
        {
            // Late, and nobody else's doing.
            self.failure = failure;
            return;
        }
        if let Some((task, _)) = failure {
            self.plan.push_front(Step::Do(task));
        }
        let followed = self.follow(seen, by.as_deref().unwrap_or(SOMEBODY));
        if followed != Followed::Yes {
            self.failure = other;
        }
        let was_doubted = std::mem::take(&mut self.look.doubted);
        match followed {
            Followed::Yes => self.look.may_be_made = false,
            // What could not be asked for is asked for again.
            Followed::AsExpected if was_lost => self.look.may_be_made = false,
            Followed::AsExpected => {
                self.look.may_be_made = false;
                self.restore(failure);
            }
            Followed::Doubtful | Followed::NotYet => {
                self.look.by = by;
                self.look.doubted = followed == Followed::Doubtful || was_doubted;
                self.restore(failure);
                self.look.unanswered = was_lost && self.failure.is_some();
                self.look_again(LOOK_RETRY.0);
            }
        }
    }

    /// Is what is seen meant so, for it was so before?
    pub(super) fn is_doubted(&self) -> bool {
        self.look.doubted
    }

    fn restore(&mut self, failure: Option<(Task, String)>) {
        if failure.is_some() {
            self.plan.pop_front();
            self.failure = failure;
        }
    }

    /// Where the platform keeps what is saved, it knows best whether there is something.
    fn note_saved_state(&mut self, seen: Observed) {
        if self.shape.save_ends_process {
            match seen.saved_state {
                StateOnDisk::None => self.saved = SavedState::None,
                _ if seen.process == Process::Running => self.saved = self.saved.min(SavedState::Doubtful),
                StateOnDisk::Whole
                    if seen.process == Process::Absent && self.saved == SavedState::Doubtful =>
                {
                    self.saved = SavedState::Whole;
                }
                _ => {}
            }
        }
    }
}

/// Is it done, though it failed? What others may have done in its stead is so only if the answer may
/// have been lost.
fn is_done(task: Task, seen: Observed, was_lost: bool) -> bool {
    let is_made = matches!(seen.process, Process::Still | Process::Incoming);
    match task {
        Task::Load => was_lost && is_made && seen.saved_state != StateOnDisk::Whole,
        Task::Boot => was_lost && is_made,
        Task::Pause | Task::Suspend => was_lost && seen.process == Process::Still,
        Task::Resume => seen.process == Process::Running,
        Task::Save => seen.process == Process::Absent && seen.saved_state == StateOnDisk::Whole,
        Task::Quit | Task::Kill | Task::PowerDown => seen.process == Process::Absent,
        Task::DiscardState => seen.saved_state == StateOnDisk::None,
        _ => false,
    }
}

/// Does the platform carry this out? Then its failure may be the doing of others.
pub(super) const fn is_of_platform(task: Task) -> bool {
    matches!(
        task,
        Task::Boot
            | Task::Load
            | Task::Resume
            | Task::Pause
            | Task::Suspend
            | Task::Save
            | Task::Flush
            | Task::Quit
            | Task::PowerDown
            | Task::Kill
            | Task::DiscardState
    )
}
