//! What tests ask of the daemon about a machine, by its command line.

use crate::{Daemon, Error, EventLog, Guest, Lab, Result, guest::Image, wait_for};
use dormouse_api_types::{MachineDetail, MachineState, Outcome, Why};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{fs, time::Duration};

/// Long enough for a boot on a busy machine without KVM.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

impl Daemon {
    /// Creates a guest, starts it and waits until all its services run; returns how long it booted.
    ///
    /// # Errors
    ///
    /// If the daemon refuses or the guest does not boot.
    pub fn boot(&self, lab: &Lab, image: &Image, guest: &Guest) -> Result<Duration> {
        self.create(lab, image, guest)?;
        self.run(&["start", guest.name()])?;
        self.wait_ready(guest, 1)
    }

    /// Writes a guest's machine file and creates the machine.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub fn create(&self, lab: &Lab, image: &Image, guest: &Guest) -> Result<()> {
        let file = guest.write(lab, image)?;
        self.run(&["create", &file.to_string_lossy()]).map(drop)
    }

    /// Waits until the guest's console says for the `boots`th time that all its services run.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_ready(&self, guest: &Guest, boots: usize) -> Result<Duration> {
        let waited = wait_for(&format!("{} to boot", guest.name()), BOOT_TIMEOUT, || {
            let console = self.show(guest.name())?.console;
            let text = console.and_then(|path| fs::read(path).ok()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            Ok((text.lines().filter(|line| line.trim() == crate::guest::READY).count() >= boots)
                .then_some(()))
        });
        waited.map(|((), took)| took)
    }

    /// All that the daemon knows of a machine.
    ///
    /// # Errors
    ///
    /// If there is no such machine.
    pub fn show(&self, name: &str) -> Result<MachineDetail> {
        self.one(&["show", name])
    }

    /// Why a machine is awake or asleep.
    ///
    /// # Errors
    ///
    /// If there is no such machine.
    pub fn why(&self, name: &str) -> Result<Why> {
        self.one(&["why", name])
    }

    /// Puts a machine to sleep, and waits until it is.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn sleep(&self, name: &str) -> Result<Outcome> {
        self.one(&["sleep", name])
    }

    /// As [`Self::sleep`], for a machine with which a connection has just been closed: its last segment
    /// rightly undoes a sleep, so a few are tried.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn sleep_after_traffic(&self, name: &str) -> Result<Outcome> {
        self.insist(name, || self.sleep(name))
    }

    /// As [`Self::sleep_after_traffic`], at this depth.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn sleep_at(&self, name: &str, depth: &str) -> Result<Outcome> {
        self.insist(name, || self.one(&["sleep", "--depth", depth, name]))
    }

    fn insist(&self, name: &str, sleep: impl Fn() -> Result<Outcome>) -> Result<Outcome> {
        for _ in 0..3 {
            match sleep() {
                Err(Error::Failed { stderr, .. }) if stderr.contains("(packet: tcp") => {
                    self.wait_state(name, MachineState::Active, BOOT_TIMEOUT)?;
                }
                outcome => return outcome,
            }
        }
        sleep()
    }

    /// Wakes a machine, and waits until it is awake.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn wake(&self, name: &str) -> Result<Outcome> {
        self.one(&["wake", name])
    }

    /// Where a machine is in its life.
    ///
    /// # Errors
    ///
    /// If there is no such machine.
    pub fn state(&self, name: &str) -> Result<MachineState> {
        self.show(name).map(|machine| machine.summary.state)
    }

    /// Waits until a machine is in a state; returns how long that took.
    ///
    /// # Errors
    ///
    /// If it is not in time; the error says in which it is.
    pub fn wait_state(&self, name: &str, state: MachineState, timeout: Duration) -> Result<Duration> {
        self.wait_machine(name, state.as_str(), timeout, |m| m.summary.state == state).map(|(_, took)| took)
    }

    /// Waits until a machine satisfies a condition; returns it, and how long that took.
    ///
    /// # Errors
    ///
    /// If it does not in time; the error has what was seen last.
    pub fn wait_machine(
        &self,
        name: &str,
        what: &str,
        timeout: Duration,
        is_so: impl Fn(&MachineDetail) -> bool,
    ) -> Result<(MachineDetail, Duration)> {
        let mut seen = String::new();
        let waited = wait_for(&format!("{name} to be {what}"), timeout, || {
            let machine = self.show(name)?;
            if is_so(&machine) {
                return Ok(Some(machine));
            }
            seen = format!("; it is {}: {:?}", machine.summary.state, machine.failure);
            Ok(None)
        });
        waited.map_err(|e| match e {
            Error::Timeout { what, waited, .. } => Error::Timeout { what, waited, detail: seen },
            other => other,
        })
    }

    /// Follows the daemon's events from now on.
    ///
    /// # Errors
    ///
    /// If `dormouse` cannot be started.
    pub fn events(&self) -> Result<EventLog> {
        EventLog::follow(self.command(&["-o", "json", "events", "--follow"]))
    }

    /// The answer about one machine, bare or as a list of one: verbs that take many names print a list.
    fn one<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let answer = match self.json(args)? {
            Value::Array(mut list) if list.len() == 1 => list.swap_remove(0),
            other => other,
        };
        serde_json::from_value(answer.clone()).map_err(|e| Error::Answer {
            from: format!("dormouse {}", args.join(" ")),
            answer: format!("{e}: {answer}"),
        })
    }
}
