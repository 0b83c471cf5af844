//! Going to sleep, and undoing it.

use dormouse_types::Depth;

use super::engine::{Lifecycle, SavedState, Step, Touched, active};
use super::{Cause, SleepReason, State, Task};

impl Lifecycle {
    /// Puts a running machine to sleep.
    pub(super) fn settle(&mut self, depth: Depth, reason: SleepReason) {
        let settling = State::Settling { depth, reason };
        let asleep = State::Asleep { depth };
        let ends = self.shape.save_ends_process;
        let mut steps = vec![Step::Journal(settling.clone()), Step::Do(Task::Capture)];
        steps.extend(
            match depth {
                Depth::Saved if ends => vec![Task::Drain, Task::Pause, Task::StandIn, Task::Save],
                Depth::Saved => vec![Task::Drain, Task::Save, Task::StandIn, Task::Flush],
                Depth::Paused => vec![Task::Drain, Task::Pause, Task::StandIn],
                Depth::Pmsuspended => vec![Task::Drain, Task::Suspend, Task::StandIn],
                Depth::Off => vec![Task::PowerDown, Task::StandIn],
            }
            .into_iter()
            .map(Step::Do),
        );
        steps.extend([Step::Journal(asleep.clone()), Step::Enter(asleep)]);
        if depth == Depth::Saved && !ends {
            steps.push(Step::Do(Task::Quit));
        }
        self.touched = Touched::default();
        self.begin(settling, steps);
    }

    /// Undoes a sleep that is not past its point of no return.
    pub(super) fn undo(&mut self, cause: Cause) {
        let undoing = State::Undoing { cause };
        let touched = self.touched;
        let mut steps = Vec::new();
        if self.offered {
            steps.push(Step::Journal(undoing.clone()));
        }
        let tasks = [
            (self.saved != SavedState::None, Task::DiscardState),
            (touched.stood_in, Task::Prepare),
            (touched.stopped, Task::Resume),
            (touched.captured || touched.stood_in, Task::Release),
        ];
        steps.extend(tasks.into_iter().filter(|(due, _)| *due).map(|(_, task)| Step::Do(task)));
        steps.extend(active());
        self.begin(undoing, steps);
    }
}
