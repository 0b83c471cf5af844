//! Planted crashes, for the tests that kill the daemon at every step of sleep and wake.
//!
//! With `DORMOUSE_ABORT_AT=STEP` in the environment the process aborts, as by a crash, at the
//! first time that a driver is about to carry out `STEP`; `STEP:before` says the same, and
//! `STEP:after` aborts once the step has succeeded, before anything else happens. `STEP` is a
//! task's word:
//!
//! ```text
//! watch capture drain stand-in prepare release dismiss await-guest
//! boot load resume pause suspend save flush quit power-down kill discard-state
//! journal:STATE   with STATE one of stopped active settling undoing asleep waking stopping suspended failed
//! ```
//!
//! Without the variable this does nothing. A word that is not one of these ends the daemon at its
//! start, so that no test passes because of a misspelling.

use dormouse_machine::lifecycle::Task;

/// The environment variable.
pub const VARIABLE: &str = "DORMOUSE_ABORT_AT";

/// Where a driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// About to carry out a step.
    Before,
    /// The step has succeeded.
    After,
}

/// A step of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Any task but `Journal`.
    Task(Task),
    /// Writing a state, by the state's word.
    Journal(&'static str),
}

/// The crash that is planted, if one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault(Option<(Step, Edge)>);

/// A word that names no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={0:?} names no step: write one as save, journal:asleep or flush:after")]
pub struct UnknownStep(pub String);

const TASKS: [Task; 19] = [
    Task::Watch,
    Task::Capture,
    Task::Drain,
    Task::StandIn,
    Task::Prepare,
    Task::Release,
    Task::Dismiss,
    Task::AwaitGuest,
    Task::Boot,
    Task::Load,
    Task::Resume,
    Task::Pause,
    Task::Suspend,
    Task::Save,
    Task::Flush,
    Task::Quit,
    Task::PowerDown,
    Task::Kill,
    Task::DiscardState,
];

const STATES: [&str; 9] =
    ["stopped", "active", "settling", "undoing", "asleep", "waking", "stopping", "suspended", "failed"];

impl Fault {
    /// Reads the variable's value.
    ///
    /// # Errors
    ///
    /// When it names no step.
    pub fn parse(text: &str) -> Result<Self, UnknownStep> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let (word, edge) = match text.rsplit_once(':') {
            Some((word, "before")) => (word, Edge::Before),
            Some((word, "after")) => (word, Edge::After),
            _ => (text, Edge::Before),
        };
        let task = || TASKS.into_iter().find(|task| task_word(*task) == word).map(Step::Task);
        let step = match word.strip_prefix("journal:") {
            Some(state) => STATES.into_iter().find(|s| *s == state).map(Step::Journal),
            None => task(),
        };
        step.map(|step| Self(Some((step, edge)))).ok_or_else(|| UnknownStep(text.into()))
    }

    /// Aborts the process if the crash is planted here.
    pub fn reach(self, step: Step, edge: Edge) {
        if self.0 == Some((step, edge)) {
            tracing::error!(?step, ?edge, "aborting, as {VARIABLE} says");
            std::process::abort();
        }
    }
}

/// A task's word in logs and in the variable.
#[must_use]
pub const fn task_word(task: Task) -> &'static str {
    match task {
        Task::Journal => "journal",
        Task::Watch => "watch",
        Task::Capture => "capture",
        Task::Drain => "drain",
        Task::StandIn => "stand-in",
        Task::Prepare => "prepare",
        Task::Release => "release",
        Task::Dismiss => "dismiss",
        Task::AwaitGuest => "await-guest",
        Task::Boot => "boot",
        Task::Load => "load",
        Task::Resume => "resume",
        Task::Pause => "pause",
        Task::Suspend => "suspend",
        Task::Save => "save",
        Task::Flush => "flush",
        Task::Quit => "quit",
        Task::PowerDown => "power-down",
        Task::Kill => "kill",
        Task::DiscardState => "discard-state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_step_of_sleep_and_wake() {
        for task in TASKS {
            for (suffix, edge) in [("", Edge::Before), (":before", Edge::Before), (":after", Edge::After)] {
                let text = format!("{}{suffix}", task_word(task));
                assert_eq!(Fault::parse(&text), Ok(Fault(Some((Step::Task(task), edge)))), "{text}");
            }
        }
        let journal = Fault(Some((Step::Journal("settling"), Edge::After)));
        assert_eq!(Fault::parse("journal:settling:after"), Ok(journal));
        assert_eq!(Fault::parse(""), Ok(Fault::default()));
    }

    #[test]
    fn refuses_a_misspelt_step() {
        for text in ["safe", "journal", "journal:sleeping", "save:later", ":after"] {
            assert_eq!(Fault::parse(text), Err(UnknownStep(text.into())), "{text}");
        }
    }
}
