//! Deeper sleep over time.
//!
//! From a depth that keeps the process to `saved` nobody is woken: the guest stands still already, and is
//! saved as it is. What wants the machine meanwhile undoes it, and a failure leaves it asleep as it was. To
//! `off` there is no way but to wake the guest and to ask it to shut down; one that does not heed that
//! sleeps again as before.

use dormouse_types::Depth;

use super::engine::{Lifecycle, SavedState, Step, Touched};
use super::{Cause, SleepReason, State, Task};

impl Lifecycle {
    /// A sleeper at rest, which nobody wants, is to sleep deeper.
    pub(super) fn deepen(&mut self, to: Depth) {
        let State::Asleep { depth: from } = self.state else { return };
        let is_free = self.rests() && self.look_due().is_none();
        if !is_free || self.wanted.is_some() || self.absent().is_some() || to <= from {
            return;
        }
        match to {
            Depth::Saved if from.keeps_process() => self.save_asleep(from),
            Depth::Off => {
                self.wake(from, Cause::Deeper);
                self.plan.push_back(Step::Settle(Depth::Off, SleepReason::Deeper(from)));
            }
            _ => {}
        }
    }

    fn save_asleep(&mut self, from: Depth) {
        let settling = State::Settling { depth: Depth::Saved, reason: SleepReason::Deeper(from) };
        let asleep = State::Asleep { depth: Depth::Saved };
        let ends = self.shape.save_ends_process;
        let mut steps = vec![Step::Journal(settling.clone()), Step::Do(Task::Save)];
        if !ends {
            steps.push(Step::Do(Task::Flush));
        }
        steps.extend([Step::Journal(asleep.clone()), Step::Enter(asleep)]);
        if !ends {
            steps.push(Step::Do(Task::Quit));
        }
        self.begin(settling, steps);
        self.touched = Touched { captured: true, stood_in: true, stopped: true };
    }

    /// The depth at which it slept before it was to be saved, and its process is still there.
    pub(super) fn slept_before(&self) -> Option<Depth> {
        match self.state {
            State::Settling { depth: Depth::Saved, reason: SleepReason::Deeper(from) } => {
                Some(from).filter(|from| from.keeps_process())
            }
            _ => None,
        }
    }

    /// It could not be saved, and sleeps on as before; whoever is not stood in for is still owed that.
    pub(super) fn stay_asleep(&mut self, depth: Depth) {
        let asleep = State::Asleep { depth };
        let discard = (self.saved != SavedState::None).then_some(Step::Do(Task::DiscardState));
        let steps: Vec<_> = discard.into_iter().chain([Step::Journal(asleep.clone())]).collect();
        let absent = self.absent.take();
        self.begin(asleep, steps);
        self.absent = absent;
    }

    /// Somebody wants a machine that was woken only to be shut down: it stays awake.
    pub(super) fn stay_awake(&mut self) {
        self.plan.retain(|step| !matches!(step, Step::Settle(..)));
    }
}
