//! What a task's failure means, by the state in which it was a step.

use dormouse_types::Depth;

use super::engine::{Lifecycle, SavedState, Step};
use super::{Cause, SleepReason, State, Task};

impl Lifecycle {
    /// A step failed, and nothing is awaited any more.
    pub(super) fn task_failed(&mut self, task: Task, why: String) {
        let why = format!("cannot {task}: {why}");
        match self.state {
            State::Settling { depth, .. } => self.settling_failed(depth, task, why),
            State::Undoing { .. } | State::Waking { .. } => self.waking_failed(task, why),
            State::Asleep { depth } => self.asleep_failed(depth, task, why),
            State::Stopping => self.stopping_failed(task, why),
            State::Active | State::Stopped | State::Suspended { .. } | State::Failed { .. } => {
                if task == Task::Journal {
                    self.owe_journal();
                }
            }
        }
    }

    fn settling_failed(&mut self, depth: Depth, task: Task, why: String) {
        if let (Some(from), None, false) = (self.slept_before(), &self.wanted, self.gone)
            && !self.was_saved_for_good()
        {
            return self.stay_asleep(from);
        }
        let before = match self.state {
            State::Settling { depth: Depth::Off, reason: SleepReason::Deeper(from) } => Some(from),
            _ => None,
        };
        let shutting_down = depth == Depth::Off && !self.plan.contains(&Step::Do(Task::PowerDown));
        match task {
            Task::PowerDown if self.gone => {}
            Task::Journal if shutting_down || self.was_saved_for_good() => self.owe_journal(),
            // The guest is off already: it sleeps, and is stood in for as soon as can be.
            Task::StandIn if shutting_down => self.owe_stand_in(why),
            _ if self.gone || (shutting_down && task != Task::PowerDown) => {
                self.fail(self.during(), why, !self.shape.shared);
            }
            _ => {
                let wanted = self.wanted.take();
                let again = before.filter(|_| wanted.is_none());
                self.undo(wanted.unwrap_or(Cause::Failure(why)));
                self.plan.extend(again.map(|from| Step::Settle(from, SleepReason::Deeper(from))));
            }
        }
    }

    fn waking_failed(&mut self, task: Task, why: String) {
        let to_start = self.plan.iter().any(|s| matches!(s, Step::Do(Task::Load | Task::Boot)));
        let loaded = matches!(self.state, State::Waking { from: Some(Depth::Saved), .. });
        let has_its_memory = match self.state {
            State::Waking { from: Some(Depth::Saved), .. } => self.shape.save_ends_process,
            State::Waking { from, .. } => from.is_some_and(Depth::keeps_process),
            _ => !self.offered,
        };
        match task {
            Task::Load | Task::Boot | Task::Kill => self.fail(self.during(), why, !self.shape.shared),
            // One whose memory is nowhere else may still be saved by hand.
            Task::Resume => self.fail(self.during(), why, !has_its_memory),
            Task::Journal
                if loaded
                    && self.saved != SavedState::None
                    && self.plan.contains(&Step::Do(Task::Resume)) =>
            {
                self.fail(self.during(), why, true);
            }
            Task::StandIn if self.sleep_until_stood_in(&why) => {}
            Task::Prepare | Task::StandIn if to_start => self.fail(self.during(), why, false),
            Task::Prepare => self.run_on_without_surrogate(),
            Task::Release => self.plan_first([Task::Dismiss, Task::Watch]),
            _ => {}
        }
    }

    /// A guest that can run does so, even though what was held for it cannot be delivered.
    fn run_on_without_surrogate(&mut self) {
        for step in &mut self.plan {
            if *step == Step::Do(Task::Release) {
                *step = Step::Do(Task::Watch);
            }
        }
        self.plan_first([Task::Dismiss]);
    }

    fn asleep_failed(&mut self, depth: Depth, task: Task, why: String) {
        match task {
            Task::Journal => self.owe_journal(),
            Task::Quit => self.plan_first([Task::Kill]),
            Task::StandIn if depth.keeps_process() && self.absent().is_none() => {
                self.touched.stopped = true;
                self.undo(Cause::Failure(why));
            }
            Task::StandIn => self.owe_stand_in(why),
            _ => {}
        }
    }

    fn stopping_failed(&mut self, task: Task, why: String) {
        match task {
            Task::PowerDown if !self.gone => {
                self.begin(State::Active, [Step::Journal(State::Active)]);
            }
            Task::Kill => self.fail(self.during(), why, false),
            _ => {}
        }
    }

    fn plan_first<const N: usize>(&mut self, tasks: [Task; N]) {
        tasks.into_iter().rev().for_each(|task| self.plan.push_front(Step::Do(task)));
    }
}
