//! After a restart: which world is true, and how to go on from there.
//!
//! The surrogate of the dead daemon is gone with all that it held. What it left in the kernel
//! (forwarding entries, taps that are down) is put right by `StandIn`, which captures first, or
//! by `Release`.

use dormouse_types::{Depth, Timestamp};

use super::engine::{Lifecycle, SavedState, Step, active};
use super::{Action, Cause, Observed, Process, Shape, SleepReason, State, StateOnDisk, Task};

/// Who did what was done meanwhile, on a platform that others use.
const OTHERS_UNWATCHED: &str = "somebody, while the daemon was down";

/// Notices that the state was journalled before a step that never became visible.
const ENDED_UNWATCHED: &str = "its process ended while the daemon was down";

impl Lifecycle {
    /// The machine that was last journalled as `last` and is now found as `seen`, by a platform of this
    /// `shape`; and what to do.
    #[must_use]
    pub fn recover(last: State, shape: Shape, seen: Observed, now: Timestamp) -> (Self, Vec<Action>) {
        let mut life = Self::new(last, shape);
        life.saved = match (seen.saved_state, life.offered) {
            (StateOnDisk::None, _) => SavedState::None,
            // As long as the journal offers a state, no guest was let run from it.
            (_, true) => SavedState::Whole,
            (StateOnDisk::Whole, false) if life.loaded(seen.process) => SavedState::Whole,
            (_, false) => SavedState::Doubtful,
        };
        life.find_true_world(seen.process);
        let in_the_making = match seen.process {
            Process::Incoming => true,
            Process::Still => seen.saved_state == StateOnDisk::Whole,
            _ => false,
        };
        if shape.shared && in_the_making {
            life.look.may_be_made = matches!(life.state, State::Asleep { depth: Depth::Saved });
            life.look_now();
        }
        let actions = life.run(now);
        (life, actions)
    }

    /// Was it waking from a saved state, and did its guest not run? If there is no process, the
    /// state is not whole unless it was given back. Or did a save end its process?
    fn loaded(&self, process: Process) -> bool {
        match self.state {
            State::Waking { from: Some(Depth::Saved), .. } => {
                matches!(process, Process::Absent | Process::Incoming)
            }
            State::Settling { depth: Depth::Saved, .. } | State::Undoing { .. } => {
                self.shape.save_ends_process && process == Process::Absent
            }
            _ => false,
        }
    }

    fn find_true_world(&mut self, process: Process) {
        match self.state.clone() {
            State::Stopped => self.recover_stopped(process),
            State::Active => self.recover_active(process),
            State::Settling { depth: Depth::Off, .. } if process == Process::Absent => {
                let asleep = State::Asleep { depth: Depth::Off };
                self.plan.extend([
                    Step::Do(Task::StandIn),
                    Step::Journal(asleep.clone()),
                    Step::Enter(asleep),
                ]);
            }
            State::Settling { .. } | State::Undoing { .. }
                if process == Process::Absent && self.is_whole() =>
            {
                self.sleep_again();
            }
            State::Settling { depth: Depth::Saved, reason: SleepReason::Deeper(from) }
                if from.keeps_process() && process == Process::Still =>
            {
                self.stay_asleep(from);
                self.plan.push_front(Step::Do(Task::StandIn));
            }
            State::Settling { .. } | State::Undoing { .. } => self.recover_running(process),
            State::Asleep { depth: Depth::Saved }
            | State::Waking { from: Some(Depth::Saved), state_used: false, .. } => {
                self.recover_saved(process)
            }
            State::Asleep { depth: Depth::Paused | Depth::Pmsuspended } => match process {
                Process::Still => self.plan.push_back(Step::Do(Task::StandIn)),
                _ => self.recover_running(process),
            },
            State::Asleep { depth: Depth::Off } => match process {
                Process::Still if self.shape.shared => self.suspended_meanwhile(),
                Process::Incoming if self.shape.shared => self.plan.push_back(Step::Do(Task::StandIn)),
                Process::Absent => self.plan.push_back(Step::Do(Task::StandIn)),
                Process::Incoming => self.plan.extend([Step::Do(Task::StandIn), Step::Do(Task::Kill)]),
                _ => self.recover_running(process),
            },
            State::Waking { from: Some(Depth::Off) | None, .. } => self.recover_booting(process),
            State::Waking { .. } => self.recover_waking(process),
            State::Suspended { .. } => self.recover_suspended(process),
            State::Stopping => self.recover_stopping(process),
            State::Failed { .. } => self.recover_failed(process),
        }
    }

    fn recover_stopped(&mut self, process: Process) {
        match process {
            Process::Absent => {}
            Process::Still | Process::Incoming if self.shape.shared => self.suspended_meanwhile(),
            Process::Incoming => self.plan.push_back(Step::Do(Task::Kill)),
            Process::Still => self.recover_running(process),
            Process::Running => self.runs_again(),
        }
    }

    fn recover_suspended(&mut self, process: Process) {
        match process {
            Process::Still | Process::Incoming => {}
            Process::Running => self.runs_again(),
            Process::Absent => self.stopped_by(OTHERS_UNWATCHED),
        }
    }

    fn runs_again(&mut self) {
        self.begin(State::Active, [Step::Do(Task::Watch), Step::Journal(State::Active)]);
    }

    fn suspended_meanwhile(&mut self) {
        self.suspended_by(OTHERS_UNWATCHED);
    }

    /// Its process is gone, and nobody knows why.
    fn ended_unwatched(&mut self) {
        if self.shape.shared {
            self.stopped_by(OTHERS_UNWATCHED);
        } else {
            self.fail(self.during(), ENDED_UNWATCHED.into(), false);
        }
    }

    fn recover_active(&mut self, process: Process) {
        match process {
            Process::Running => self.plan.push_back(Step::Do(Task::Watch)),
            Process::Still | Process::Incoming if self.shape.shared => self.suspended_meanwhile(),
            // Its interfaces go as after any other end of a guest.
            Process::Absent => {
                self.begin(State::Stopped, [Step::Do(Task::Dismiss), Step::Journal(State::Stopped)]);
            }
            _ => self.recover_running(process),
        }
    }

    /// A guest that should run, or is as good as running: undo whatever was going on.
    fn recover_running(&mut self, process: Process) {
        match process {
            Process::Running | Process::Still => self.undo_after_restart(process),
            Process::Absent => self.ended_unwatched(),
            Process::Incoming => {
                self.fail(self.during(), "it was found with a process that never ran".into(), true);
            }
        }
    }

    fn undo_after_restart(&mut self, process: Process) {
        let still = process == Process::Still;
        self.touched.captured = true;
        (self.touched.stood_in, self.touched.stopped) = (still, still);
        self.undo(Cause::Restart);
        if still {
            // Captures at once what comes while the undo goes on.
            self.plan.push_front(Step::Do(Task::StandIn));
        }
    }

    fn recover_saved(&mut self, process: Process) {
        let depth = Depth::Saved;
        match (process, self.saved) {
            // The guest never ran, or its memory is still in the process.
            (Process::Running, _) | (Process::Still, SavedState::None) => self.undo_after_restart(process),
            (Process::Absent, SavedState::None) if self.shape.shared => self.stopped_by(OTHERS_UNWATCHED),
            (_, SavedState::None) => {
                self.fail(
                    "asleep",
                    "its saved state is missing or damaged".into(),
                    process == Process::Incoming,
                );
            }
            (_, _) => {
                self.plan.push_back(Step::Do(Task::StandIn));
                self.enter(State::Asleep { depth });
                match process {
                    Process::Still if !self.shape.save_ends_process => {
                        self.plan.push_back(Step::Do(Task::Quit))
                    }
                    Process::Incoming => self.plan.extend(self.tidy_up()),
                    _ => {}
                }
            }
        }
    }

    /// From `saved` with its state used, or from `paused`.
    fn recover_waking(&mut self, process: Process) {
        let tasks: &[Task] = match process {
            Process::Absent if self.saved == SavedState::Whole => return self.sleep_again(),
            Process::Absent => return self.ended_unwatched(),
            Process::Running => &[Task::Release],
            Process::Still | Process::Incoming => {
                &[Task::StandIn, Task::Prepare, Task::Resume, Task::Release]
            }
        };
        self.plan.extend(tasks.iter().copied().map(Step::Do));
        self.plan.extend(active());
    }

    /// The state is whole, which could not be journalled any more: its load failed, and the state was given
    /// back, or its save ended the process.
    pub(super) fn sleep_again(&mut self) {
        let asleep = State::Asleep { depth: Depth::Saved };
        self.begin(asleep.clone(), [Step::Do(Task::StandIn), Step::Journal(asleep)]);
        self.saved = SavedState::Whole;
    }

    fn recover_booting(&mut self, process: Process) {
        let from_off = matches!(self.state, State::Waking { from: Some(_), .. });
        let late = self.shape.late_interfaces;
        let made = matches!(process, Process::Still | Process::Incoming);
        let runs = process == Process::Running;
        let tasks = [
            (from_off && !runs, Task::StandIn),
            (made && !late, Task::Kill),
            (from_off && !runs && !late, Task::Prepare),
            (!(runs || made && late), Task::Boot),
            (from_off && !runs && late, Task::Prepare),
            (!from_off, Task::Watch),
            (!runs && late, Task::Resume),
            (from_off, Task::AwaitGuest),
            (from_off, Task::Release),
        ];
        self.plan.extend(tasks.into_iter().filter(|(due, _)| *due).map(|(_, task)| Step::Do(task)));
        self.plan.extend(active());
    }

    fn recover_stopping(&mut self, process: Process) {
        let mut tasks = match process {
            Process::Running => vec![Task::PowerDown],
            Process::Still | Process::Incoming => vec![Task::Kill],
            Process::Absent => vec![],
        };
        tasks.push(Task::Dismiss);
        if self.saved != SavedState::None {
            tasks.push(Task::DiscardState);
        }
        self.stop_by(tasks);
    }

    fn recover_failed(&mut self, process: Process) {
        if process == Process::Running {
            return self.undo_after_restart(process);
        }
        let State::Failed { during, why, state_kept: true } = &self.state else { return };
        if self.saved == SavedState::None {
            let why = format!("{why}; and its saved state is missing or damaged");
            let failed = State::Failed { during: during.clone(), why, state_kept: false };
            self.begin(failed.clone(), [Step::Journal(failed)]);
        }
    }
}
