//! Waking and booting.

use dormouse_types::Depth;

use super::engine::{Lifecycle, Step, active};
use super::{Cause, State, Task};

impl Lifecycle {
    /// Wakes a sleeper.
    pub(super) fn wake(&mut self, depth: Depth, cause: Cause) {
        let waking = State::Waking { from: Some(depth), state_used: depth == Depth::Saved, cause };
        let steps = wake_steps(&waking, depth);
        self.begin(waking, steps);
    }

    /// Tries again to wake a failed machine whose saved state was never used.
    pub(super) fn wake_failed(&mut self) {
        let waking = State::Waking { from: Some(Depth::Saved), state_used: true, cause: Cause::Command };
        let mut steps = vec![Step::Do(Task::Kill), Step::Do(Task::StandIn)];
        steps.extend(wake_steps(&waking, Depth::Saved));
        self.begin(waking, steps);
    }

    /// Boots a stopped machine.
    pub(super) fn boot(&mut self) {
        let waking = State::Waking { from: None, state_used: false, cause: Cause::Command };
        let steps = boot_steps(&waking);
        self.begin(waking, steps);
    }

    /// Boots a failed machine afresh and gives up its saved state.
    pub(super) fn boot_cold(&mut self) {
        let waking = State::Waking { from: None, state_used: false, cause: Cause::Command };
        let mut steps = vec![Step::Do(Task::Kill)];
        steps.extend(boot_steps(&waking));
        // After the write, before the boot: a crash in between boots again.
        steps.insert(2, Step::Do(Task::DiscardState));
        self.begin(waking, steps);
    }
}

fn wake_steps(waking: &State, depth: Depth) -> Vec<Step> {
    let journal = Step::Journal(waking.clone());
    let mut steps = match depth {
        Depth::Saved => vec![Step::Do(Task::Prepare), Step::Do(Task::Load), journal, Step::Do(Task::Resume)],
        Depth::Paused | Depth::Pmsuspended => vec![journal, Step::Do(Task::Prepare), Step::Do(Task::Resume)],
        Depth::Off => {
            vec![journal, Step::Do(Task::Prepare), Step::Do(Task::Boot), Step::Do(Task::AwaitGuest)]
        }
    };
    steps.push(Step::Do(Task::Release));
    steps.extend(active());
    steps
}

fn boot_steps(waking: &State) -> Vec<Step> {
    let mut steps = vec![Step::Journal(waking.clone()), Step::Do(Task::Boot), Step::Do(Task::Watch)];
    steps.extend(active());
    steps
}
