//! Dormouse, by its daemon and its command line.

use super::{IP, Machine, Rival, wait_gone};
use anyhow::{Result, ensure};
use dormouse_lab::{Client, Daemon, Guest, Lab, api::MachineState};
use std::{path::PathBuf, time::Duration};

const NAME: &str = "rival";
const PATIENCE: Duration = Duration::from_secs(60);
/// Datagrams are held until a connection wakes the guest.
const WAKE_ON: &str = "tcp:7,22,80,7778,7779";
const CONFIG: &str = "[limits]\nheld_frames = 400000\nheld_bytes = \"256MiB\"";

/// A guest that Dormouse runs.
pub(crate) struct Dormouse {
    pub(crate) daemon: Daemon,
    own_account: Option<Duration>,
    // Last, so that it goes last and takes down what is still there.
    lab: Lab,
}

impl Dormouse {
    pub(crate) const NAME: &str = NAME;

    pub(crate) fn boot(machine: &Machine) -> Result<Self> {
        let lab = Lab::new("dormouse")?;
        let daemon = Daemon::start_with(&lab, CONFIG, &[])?;
        let guest = Guest::new(NAME, IP.octets()[3]).dirty(machine.dirty);
        let guest = guest.set("qemu.memory", format!("{}MiB", machine.mib()));
        let guest = guest.set("wake.on", vec![WAKE_ON.to_owned()]);
        daemon.create(&lab, &machine.image, &guest)?;
        daemon.run(&["start", "--no-wait", NAME])?;
        daemon.wait_ready(&guest, 1)?;
        daemon.wait_state(NAME, MachineState::Active, PATIENCE)?;
        Ok(Self { daemon, own_account: None, lab })
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
