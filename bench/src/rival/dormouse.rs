//! Dormouse, by its daemon and its command line.

use super::{IP, Machine, Rival, wait_gone};
use anyhow::{Result, ensure};
use dormouse_lab::{Client, Daemon, Guest, Lab, api::MachineState, wait_until};
use std::{fs, path::PathBuf, time::Duration};

pub(super) const NAME: &str = "rival";
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Datagrams are held until a connection wakes the guest.
pub(super) const WAKE_ON: &str = "tcp:7,22,80,7778,7779";
pub(super) const CONFIG: &str = "[limits]\nheld_frames = 400000\nheld_bytes = \"256MiB\"";

/// Late enough to see that the machine's own process is gone.
const STANDBY: &str = "[standby]\nmemory = \"1GiB\"\nafter = \"1s\"";

/// What is done before a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A process is waited for that stands by.
    Standby,
    /// What the last wakes touched is forgotten.
    Forget,
}

/// A guest that Dormouse runs.
pub(crate) struct Dormouse {
    pub(crate) daemon: Daemon,
    before: Before,
    own_account: Option<Duration>,
    // Last, so that it goes last and takes down what is still there.
    lab: Lab,
}

impl Dormouse {
    pub(crate) const NAME: &str = NAME;

    pub(crate) fn boot(machine: &Machine) -> Result<Self> {
        Self::boot_as(machine, CONFIG, Before::Nothing)
    }

    pub(crate) fn boot_with_standby(machine: &Machine) -> Result<Self> {
        Self::boot_as(machine, &format!("{CONFIG}\n{STANDBY}"), Before::Standby)
    }

    pub(crate) fn boot_without_list(machine: &Machine) -> Result<Self> {
        Self::boot_as(machine, CONFIG, Before::Forget)
    }

    fn boot_as(machine: &Machine, config: &str, before: Before) -> Result<Self> {
        let lab = Lab::new("dormouse")?;
        let daemon = Daemon::start_with(&lab, config, &[])?;
        let guest = Guest::new(NAME, IP.octets()[3]).dirty(machine.dirty);
        let guest = guest.set("qemu.memory", format!("{}MiB", machine.mib()));
        let guest = guest.set("wake.on", vec![WAKE_ON.to_owned()]);
        daemon.create(&lab, &machine.image, &guest)?;
        daemon.run(&["start", "--no-wait", NAME])?;
        daemon.wait_ready(&guest, 1)?;
        daemon.wait_state(NAME, MachineState::Active, PATIENCE)?;
        Ok(Self { daemon, before, own_account: None, lab })
    }
}

impl Dormouse {
    pub(crate) fn client(&self) -> Client {
        self.lab.client()
    }
}

impl Rival for Dormouse {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn dir(&self) -> PathBuf {
        self.daemon.state_dir()
    }

    fn sleep(&mut self) -> Result<()> {
        let outcome = self.daemon.sleep(NAME)?;
        ensure!(outcome.state == MachineState::Asleep, "it is {}: {}", outcome.state, outcome.detail);
        self.own_account = Some(Duration::from_millis(outcome.took_ms));
        wait_gone(&self.lab)
    }

    fn arm(&mut self) -> Result<()> {
        match self.before {
            Before::Nothing => {}
            Before::Standby => {
                wait_until("a process to stand by", PATIENCE, || {
                    Ok(self.daemon.show(NAME)?.summary.standby_bytes.is_some())
                })?;
            }
            Before::Forget => {
                let list = self.daemon.state_dir().join("machines").join(NAME).join("touched");
                if list.exists() {
                    fs::remove_file(list)?;
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.daemon.wait_state(NAME, MachineState::Active, PATIENCE)?;
        Ok(())
    }

    fn own_account(&self) -> Option<Duration> {
        self.own_account
    }
}
