//! What a user may ask, state by state.

use dormouse_types::{Depth, Timestamp};

use super::engine::Lifecycle;
use super::{Action, Cause, Command, Refusal, SleepReason, State};

/// What others suspended, others resume; a guest that suspended itself has another way back.
const RESUME_IT: &str = "others suspended it, or its guest did, and by its platform's own means it runs on: \
                         `virsh resume DOMAIN`, or `virsh dompmwakeup DOMAIN` if `virsh domstate DOMAIN` says \
                         pmsuspended";
const NOT_NOW: &str = "wait until it is done, or stop it with --force";

impl Lifecycle {
    /// Carries out a user's command, if the state allows it. What is already so is accepted and
    /// does nothing; the outcome of the rest is announced.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed.
    pub fn command(&mut self, command: Command, now: Timestamp) -> Result<Vec<Action>, Refusal> {
        let (verb, outcome) = match command {
            Command::Start { cold: false } => ("start", self.ask_wake()),
            Command::Wake => ("wake", self.ask_wake()),
            Command::Start { cold: true } => ("start", self.ask_cold_start()),
            Command::Stop { force } => ("stop", self.ask_stop(force)),
            Command::Sleep(depth) => ("sleep", self.ask_sleep(depth)),
        };
        outcome.map_err(|fix| Refusal { verb, state: self.state.word(), fix })?;
        Ok(self.run(now))
    }

    fn ask_wake(&mut self) -> Result<(), &'static str> {
        match self.state {
            State::Active | State::Undoing { .. } | State::Waking { .. } => self.stay_awake(),
            State::Settling { .. } | State::Asleep { .. } => self.want(Cause::Command),
            State::Stopped => self.boot(),
            State::Failed { state_kept: true, .. } => self.wake_failed(),
            State::Failed { .. } => {
                return Err(
                    "boot it afresh with `dormouse start --cold`; there is no saved state to wake from",
                );
            }
            State::Suspended { .. } => return Err(RESUME_IT),
            State::Stopping => return Err("wait until it is stopped, then start it"),
        }
        Ok(())
    }

    fn ask_cold_start(&mut self) -> Result<(), &'static str> {
        match self.state {
            State::Stopped => self.boot(),
            State::Asleep { depth: Depth::Off } => self.want(Cause::Command),
            State::Failed { .. } => self.boot_cold(),
            State::Asleep { .. } => {
                return Err("wake it, or give up what it has in memory with `dormouse stop --force`");
            }
            State::Active | State::Suspended { .. } => return Err("it runs; stop it first"),
            _ => return Err(NOT_NOW),
        }
        Ok(())
    }

    fn ask_stop(&mut self, force: bool) -> Result<(), &'static str> {
        match (&self.state, force) {
            (State::Stopped, _) | (State::Stopping, false) => {}
            (State::Active, false) => self.stop(),
            (State::Suspended { .. }, false) => return Err(RESUME_IT),
            (State::Asleep { depth: Depth::Off } | State::Failed { state_kept: false, .. }, false) => {
                self.stop_by_force();
            }
            (_, true) => self.stop_by_force(),
            (State::Asleep { .. }, false) => {
                return Err("wake it first, or use --force, which loses what it has in memory");
            }
            (State::Failed { .. }, false) => {
                return Err("wake it to try again, or use --force, which loses its saved state");
            }
            (State::Settling { .. } | State::Undoing { .. } | State::Waking { .. }, false) => {
                return Err(NOT_NOW);
            }
        }
        Ok(())
    }

    fn ask_sleep(&mut self, depth: Depth) -> Result<(), &'static str> {
        match self.state {
            State::Active => self.settle(depth, SleepReason::Command),
            State::Settling { depth: to, .. } | State::Asleep { depth: to } if to == depth => {}
            State::Settling { .. } => {
                return Err("it is on its way to another depth; wait until it is asleep");
            }
            State::Asleep { .. } => return Err("it sleeps at another depth; wake it first"),
            State::Undoing { .. } | State::Waking { .. } => return Err("wait until it is active"),
            State::Suspended { .. } => return Err(RESUME_IT),
            State::Stopping | State::Stopped => return Err("start it first"),
            State::Failed { .. } => {
                return Err("see `dormouse why`, then wake it or boot it with `dormouse start --cold`");
            }
        }
        Ok(())
    }
}
