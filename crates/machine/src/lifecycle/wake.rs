//! Waking and booting.

use dormouse_types::Depth;

use super::engine::{Lifecycle, Step, active};
use super::{Cause, Shape, State, Task};

impl Lifecycle {
    /// Wakes a sleeper.
    pub(super) fn wake(&mut self, depth: Depth, cause: Cause) {
        let waking = State::Waking { from: Some(depth), state_used: depth == Depth::Saved, cause };
        let steps = wake_steps(&waking, depth, self.shape);
        self.begin(waking, steps);
    }

    /// Tries again to wake a failed machine whose saved state was never used.
    pub(super) fn wake_failed(&mut self) {
        let waking = State::Waking { from: Some(Depth::Saved), state_used: true, cause: Cause::Command };
        let mut steps = self.tidy_up();
        steps.push(Step::Do(Task::StandIn));
        steps.extend(wake_steps(&waking, Depth::Saved, self.shape));
        self.begin(waking, steps);
    }

    /// Boots a stopped machine.
    pub(super) fn boot(&mut self) {
        let waking = State::Waking { from: None, state_used: false, cause: Cause::Command };
        let steps = boot_steps(&waking, self.shape);
        self.begin(waking, steps);
    }

    /// Boots a failed machine afresh and gives up its saved state.
    pub(super) fn boot_cold(&mut self) {
        let waking = State::Waking { from: None, state_used: false, cause: Cause::Command };
        let mut steps = vec![Step::Do(Task::Kill)];
        steps.extend(boot_steps(&waking, self.shape));
        // After the write, before the boot: a crash in between boots again.
        steps.insert(2, Step::Do(Task::DiscardState));
        self.begin(waking, steps);
        if self.shape.shared {
            self.look_now();
        }
    }
}

fn wake_steps(waking: &State, depth: Depth, shape: Shape) -> Vec<Step> {
    let (before, after): (&'static [Task], &'static [Task]) = match (depth, shape.late_interfaces) {
        (Depth::Saved, false) => (&[Task::Prepare, Task::Load], &[Task::Resume]),
        (Depth::Saved, true) => (&[Task::Load], &[Task::Prepare, Task::Resume]),
        (Depth::Paused | Depth::Pmsuspended, _) => (&[], &[Task::Prepare, Task::Resume]),
        (Depth::Off, false) => (&[], &[Task::Prepare, Task::Boot, Task::AwaitGuest]),
        (Depth::Off, true) => (&[], &[Task::Boot, Task::Prepare, Task::Resume, Task::AwaitGuest]),
    };
    let tasks = |tasks: &'static [Task]| tasks.iter().copied().map(Step::Do);
    let journal = Step::Journal(waking.clone());
    let end = [Step::Do(Task::Release)].into_iter().chain(active());
    tasks(before).chain([journal]).chain(tasks(after)).chain(end).collect()
}

fn boot_steps(waking: &State, shape: Shape) -> Vec<Step> {
    let mut steps = vec![Step::Journal(waking.clone())];
    let tasks: &[Task] = if shape.late_interfaces {
        &[Task::Boot, Task::Watch, Task::Resume]
    } else {
        &[Task::Boot, Task::Watch]
    };
    steps.extend(tasks.iter().copied().map(Step::Do));
    steps.extend(active());
    steps
}
