//! Following what others than Dormouse did to a machine: it never lets a guest run, stand still or end
//! against them.

use dormouse_types::Depth;

use super::engine::{Lifecycle, SavedState, Step, active};
use super::look::Followed;
use super::{Cause, Observed, Process, State, StateOnDisk, Task};

impl Lifecycle {
    /// Others may have changed the machine, which is `seen` so while nothing is awaited. The plan
    /// begins with what is still to be done.
    pub(super) fn follow(&mut self, seen: Observed, by: &str) -> Followed {
        match seen.process {
            Process::Running => self.follow_running(by),
            Process::Still => self.follow_still(seen.saved_state, by),
            Process::Incoming if self.is_loaded() || matches!(self.state, State::Failed { .. }) => {
                Followed::AsExpected
            }
            // A user's wish, whatever becomes of it.
            Process::Incoming if self.is_to_come(&[Task::Kill]) => Followed::AsExpected,
            Process::Incoming if self.look.may_be_made && !self.shape.save_ends_process => {
                self.follow_still(seen.saved_state, by)
            }
            // Half a wake of ours: nobody else has its state, which is as good as new.
            Process::Incoming if self.is_to_come(&[Task::Load]) && self.is_whole() => {
                self.plan.push_front(Step::Do(Task::Kill));
                Followed::Yes
            }
            Process::Incoming => Followed::NotYet,
            Process::Absent => self.follow_absent(seen.saved_state, by),
        }
    }

    fn is_to_come(&self, tasks: &[Task]) -> bool {
        self.plan.iter().any(|step| matches!(step, Step::Do(task) if tasks.contains(task)))
    }

    /// Is the guest that falls asleep still to be stopped?
    fn is_still_to_stop(&self) -> bool {
        let ends = self.shape.save_ends_process;
        let is_saved_running = !ends && self.slept_before().is_none();
        self.is_to_come(&[Task::Pause, Task::Suspend]) || is_saved_running && self.is_to_come(&[Task::Save])
    }

    /// Is there a process whose guest is about to run?
    fn is_loaded(&self) -> bool {
        matches!(self.state, State::Waking { .. })
            && self.is_to_come(&[Task::Resume])
            && !self.is_to_come(&[Task::Load, Task::Boot])
    }

    fn follow_running(&mut self, by: &str) -> Followed {
        match self.state {
            State::Active => return Followed::AsExpected,
            State::Waking { .. } | State::Undoing { .. } => {
                let theirs = [Task::Kill, Task::Load, Task::Boot, Task::Resume];
                if !self.is_to_come(&theirs) {
                    return Followed::AsExpected;
                }
                self.plan.retain(|step| !matches!(step, Step::Do(task) if theirs.contains(task)));
            }
            State::Settling { depth: Depth::Off, .. } => {
                if self.is_to_come(&[Task::PowerDown]) {
                    return Followed::AsExpected;
                }
                self.started_by(Depth::Off, by);
            }
            State::Settling { .. } if self.is_still_to_stop() => return Followed::AsExpected,
            State::Settling { depth, .. } if depth == Depth::Saved && !self.is_to_come(&[Task::Save]) => {
                self.started_by(depth, by);
            }
            State::Settling { .. } => {
                self.touched.stopped = false;
                self.undo(Cause::Others(by.into()));
            }
            State::Asleep { depth } => self.started_by(depth, by),
            State::Stopped | State::Suspended { .. } | State::Failed { .. } => {
                self.spare_process();
                self.why = Some(by.into());
                self.begin(State::Active, [Step::Do(Task::Watch), Step::Journal(State::Active)]);
            }
            State::Stopping => {
                if self.is_to_come(&[Task::PowerDown, Task::Kill]) {
                    return Followed::AsExpected;
                }
                self.why = Some(by.into());
                let steps = [Step::Do(Task::Dismiss), Step::Do(Task::Watch), Step::Journal(State::Active)];
                self.begin(State::Active, steps);
            }
        }
        Followed::Yes
    }

    /// Others let a sleeper run: it is given what is held for it.
    fn started_by(&mut self, depth: Depth, by: &str) {
        let cause = Cause::Others(by.into());
        let waking = State::Waking { from: Some(depth), state_used: depth == Depth::Saved, cause };
        let mut steps = vec![Step::Journal(waking.clone()), Step::Do(Task::Prepare)];
        if depth == Depth::Off {
            steps.push(Step::Do(Task::AwaitGuest));
        }
        steps.push(Step::Do(Task::Release));
        steps.extend(active());
        self.begin(waking, steps);
    }

    fn follow_still(&mut self, saved: StateOnDisk, by: &str) -> Followed {
        let must_stop = self.is_still_to_stop();
        let to_resume = self.is_to_come(&[Task::Resume]);
        // As long as the platform has the state, it is still being loaded.
        let is_loading = self.shape.save_ends_process && saved == StateOnDisk::Whole;
        match self.state {
            State::Failed { state_kept: true, .. } if saved == StateOnDisk::None => {
                return self.suspended_if_it_lasts(by);
            }
            // A failed machine may have a process, which is its last hope.
            State::Suspended { .. } | State::Failed { .. } => return Followed::AsExpected,
            State::Asleep { depth } if depth.keeps_process() => return Followed::AsExpected,
            State::Undoing { .. } if to_resume => return Followed::AsExpected,
            State::Stopping if self.is_to_come(&[Task::Kill]) => return Followed::AsExpected,
            State::Asleep { depth: Depth::Saved } if self.is_to_come(&[Task::Quit]) => {
                return Followed::AsExpected;
            }
            State::Asleep { .. } if self.look.may_be_made && is_loading => return Followed::NotYet,
            State::Asleep { depth } if self.look.may_be_made => self.go_on_waking(depth),
            State::Asleep { .. } => return self.suspended_if_it_lasts(by),
            State::Waking { .. } if self.is_to_come(&[Task::Kill]) => return Followed::AsExpected,
            State::Waking { .. } if self.is_to_come(&[Task::Load]) && is_loading => {
                return Followed::NotYet;
            }
            State::Waking { .. } if self.is_to_come(&[Task::Load, Task::Boot]) => {
                return self.suspended_if_it_lasts(by);
            }
            State::Waking { from: Some(Depth::Saved), .. } if to_resume && is_loading => {
                return Followed::NotYet;
            }
            State::Waking { .. } if to_resume => return Followed::AsExpected,
            State::Settling { depth: Depth::Off, .. } if !self.is_to_come(&[Task::PowerDown]) => {
                return self.suspended_if_it_lasts(by);
            }
            State::Settling { depth: Depth::Off, .. } => self.suspended_by(by),
            // Its save has ended its process: this is another.
            State::Settling { depth: Depth::Saved, .. }
                if self.shape.save_ends_process && !self.is_to_come(&[Task::Save]) =>
            {
                return self.suspended_if_it_lasts(by);
            }
            State::Settling { .. } if !must_stop => return Followed::AsExpected,
            _ => self.suspended_by(by),
        }
        Followed::Yes
    }

    /// A process that is just being started stands still as well.
    fn suspended_if_it_lasts(&mut self, by: &str) -> Followed {
        if !self.is_doubted() {
            return Followed::Doubtful;
        }
        self.suspended_by(by);
        Followed::Yes
    }

    /// The wake of which nobody could say how far it came has made a process.
    fn go_on_waking(&mut self, depth: Depth) {
        let cause = self.wanted.take().unwrap_or(Cause::Restart);
        let waking = State::Waking { from: Some(depth), state_used: depth == Depth::Saved, cause };
        let mut steps = vec![Step::Journal(waking.clone()), Step::Do(Task::Prepare), Step::Do(Task::Resume)];
        if depth == Depth::Off {
            steps.push(Step::Do(Task::AwaitGuest));
        }
        steps.push(Step::Do(Task::Release));
        steps.extend(active());
        self.begin(waking, steps);
    }

    /// What a plan was still to end is theirs now.
    fn spare_process(&mut self) {
        self.plan.retain(|step| *step != Step::Do(Task::Kill));
    }

    pub(super) fn suspended_by(&mut self, by: &str) {
        self.spare_process();
        let suspended = State::Suspended { by: by.into() };
        // Nobody stands in for a machine that is stopped or active.
        let is_plain = matches!(self.state, State::Active | State::Stopped);
        let dismiss = (!is_plain).then_some(Step::Do(Task::Dismiss));
        let steps: Vec<_> = dismiss.into_iter().chain([Step::Journal(suspended.clone())]).collect();
        self.begin(suspended, steps);
    }

    fn follow_absent(&mut self, saved: StateOnDisk, by: &str) -> Followed {
        let is_saved = saved != StateOnDisk::None;
        // That of a process which let its guest run, perhaps without our knowing, is used.
        let is_unused = saved == StateOnDisk::Whole || is_saved && self.is_whole();
        match self.state {
            State::Stopped => return Followed::AsExpected,
            State::Failed { state_kept: false, .. } => return Followed::AsExpected,
            _ if self.is_undefined() => self.stopped_by(by),
            State::Asleep { depth: Depth::Off } => return Followed::AsExpected,
            State::Failed { .. } if is_saved => return Followed::AsExpected,
            State::Asleep { depth: Depth::Saved } if is_saved => return Followed::AsExpected,
            State::Settling { depth: Depth::Off, .. } if !self.is_to_come(&[Task::PowerDown]) => {
                return Followed::AsExpected;
            }
            State::Settling { depth: Depth::Saved, .. } if self.saved >= SavedState::Written => {
                self.gone = true;
                return Followed::AsExpected;
            }
            State::Waking { from: Some(Depth::Saved), .. } if is_unused => {
                if self.is_to_come(&[Task::Load]) {
                    return Followed::AsExpected;
                }
                // What was loading it has given it back.
                self.sleep_again();
            }
            State::Waking { from: None | Some(Depth::Off), .. } if self.is_to_come(&[Task::Boot]) => {
                return Followed::AsExpected;
            }
            State::Stopping => {
                let moot = [Task::PowerDown, Task::Kill];
                self.plan.retain(|step| !matches!(step, Step::Do(task) if moot.contains(task)));
            }
            _ => self.stopped_by(by),
        }
        Followed::Yes
    }

    /// Others ended the machine, or took what it was to wake from.
    pub(super) fn stopped_by(&mut self, by: &str) {
        self.why = Some(by.into());
        self.begin(State::Stopped, [Step::Do(Task::Dismiss), Step::Journal(State::Stopped)]);
    }
}
