//! Ends: a stop that was asked for, a guest that ended by itself, and giving up.

use dormouse_types::Depth;

use super::engine::{Ended, Lifecycle, SavedState, Step};
use super::{State, Task};

impl Lifecycle {
    /// Asks the guest to shut down.
    pub(super) fn stop(&mut self) {
        self.stop_by(vec![Task::PowerDown, Task::Dismiss]);
    }

    /// Ends the machine whatever it does, and gives up what it saved.
    pub(super) fn stop_by_force(&mut self) {
        self.hurry();
        let mut tasks = vec![Task::Kill, Task::Dismiss];
        if self.saved != SavedState::None || self.is_pending(Task::Save) {
            tasks.push(Task::DiscardState);
        }
        self.stop_by(tasks);
    }

    /// Stops a machine that has no process, or whose process is of no use.
    pub(super) fn stop_by(&mut self, tasks: Vec<Task>) {
        let mut steps = vec![Step::Journal(State::Stopping)];
        steps.extend(tasks.into_iter().map(Step::Do));
        steps.extend([Step::Enter(State::Stopped), Step::Journal(State::Stopped)]);
        self.begin(State::Stopping, steps);
    }

    /// The guest or its process ended, and nothing is awaited any more.
    pub(super) fn guest_ended(&mut self, ended: Ended) {
        match (ended, &self.state) {
            (Ended::Shutdown, State::Active | State::Suspended { .. }) => {
                self.begin(State::Stopped, [Step::Do(Task::Dismiss), Step::Journal(State::Stopped)]);
            }
            (Ended::Shutdown, _) => self.guest_shut_down_halfway(),
            (Ended::Died(why), State::Active | State::Suspended { .. }) => self.fail("running", why, false),
            (Ended::Died(why), State::Asleep { .. }) => self.fail("asleep", why, false),
            // What was saved does not need the process: the sleep goes on.
            (Ended::Died(_), State::Settling { depth: Depth::Saved, .. }) if self.is_written() => {
                self.gone = true;
            }
            (Ended::Died(why), _) => self.fail(self.during(), why, !self.shape.shared),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.saved == SavedState::Whole
    }

    fn is_written(&self) -> bool {
        self.saved >= SavedState::Written
    }

    /// A guest that shut down while it was put to sleep or woken is stopped, not asleep.
    fn guest_shut_down_halfway(&mut self) {
        let mut steps = self.tidy_up();
        steps.extend([Step::Do(Task::Dismiss), Step::Journal(State::Stopped)]);
        if self.saved != SavedState::None {
            steps.push(Step::Do(Task::DiscardState));
        }
        self.begin(State::Stopped, steps);
    }

    /// Gives up. A saved state that was never used is kept.
    pub(super) fn fail(&mut self, during: &str, why: String, kill: bool) {
        let state_kept = self.saved == SavedState::Whole;
        let failed = State::Failed { during: during.into(), why, state_kept };
        let mut steps = if kill { vec![Step::Do(Task::Kill)] } else { Vec::new() };
        steps.extend([Step::Journal(failed.clone()), Step::Do(Task::Dismiss)]);
        self.begin(failed, steps);
    }

    /// Ends what may be left of a process, unless it could be another one, of others.
    pub(super) fn tidy_up(&self) -> Vec<Step> {
        if self.shape.shared { Vec::new() } else { vec![Step::Do(Task::Kill)] }
    }

    /// What is being done, for [`State::Failed`].
    pub(super) fn during(&self) -> &'static str {
        match self.state {
            State::Settling { .. } => "going to sleep",
            State::Undoing { .. } => "undoing a sleep",
            State::Waking { from: None, .. } => "starting",
            State::Waking { .. } => "waking",
            State::Asleep { .. } => "asleep",
            State::Stopping => "stopping",
            State::Stopped | State::Active | State::Suspended { .. } | State::Failed { .. } => "running",
        }
    }
}
