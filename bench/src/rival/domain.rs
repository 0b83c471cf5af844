//! A domain of libvirt that Dormouse puts to sleep, in each of its ways.

use super::{BOOT_TIMEOUT, IP, Machine, Rival, dormouse, wait_gone};
use anyhow::{Context, Result, ensure};
use dormouse_lab::{Daemon, Domain, Guest, Lab, Libvirtd, api::MachineState, wait_until};
use std::{fs, path::PathBuf, time::Duration};

/// Paged out, this is left of the process and not of its guest.
const LEFT: u64 = 64 << 20;

/// How the domain sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Managed,
    PagedOut,
    RamFile,
}

/// A domain that is a machine of Dormouse's.
pub(crate) struct OfLibvirt {
    way: Way,
    daemon: Daemon,
    libvirtd: Libvirtd,
    own_account: Option<Duration>,
    // Last, so that it goes last and takes down what is still there.
    lab: Lab,
}

impl OfLibvirt {
    pub(crate) fn boot(machine: &Machine, way: Way) -> Result<Self> {
        let lab = Lab::new("domain")?;
        let libvirtd = Libvirtd::start(&lab)?;
        let daemon = Daemon::start_with(&lab, dormouse::CONFIG, &[])?;
        let guest = Guest::new(dormouse::NAME, IP.octets()[3]).dirty(machine.dirty);
        let guest = guest.set("wake.on", vec![dormouse::WAKE_ON.to_owned()]);
        let (guest, extra) = match way {
            Way::Managed => (guest, ""),
            Way::PagedOut => (
                guest.set("libvirt.page_out", true).set("sleep.depth", "paused"),
                "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>",
            ),
            Way::RamFile => (guest.set("libvirt.save", "ram-file"), ""),
        };
        let domain = Domain::new(guest).memory(machine.mib()).extra(extra);
        libvirtd.define(&lab, &machine.image, &domain)?;
        let file = domain.machine_file(&lab, &libvirtd)?;
        daemon.run(&["create", &file.to_string_lossy()])?;
        daemon.run(&["start", "--no-wait", dormouse::NAME])?;
        domain.wait_ready(&lab, 1, BOOT_TIMEOUT)?;
        daemon.wait_state(dormouse::NAME, MachineState::Active, dormouse::PATIENCE)?;
        Ok(Self { way, daemon, libvirtd, own_account: None, lab })
    }

    /// Waits until the host has the memory back.
    fn wait_away(&self) -> Result<()> {
        let pid = *self.lab.qemu_pids()?.first().context("the domain has no process")?;
        let away =
            || Ok(file_bytes(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()) < LEFT);
        wait_until("the memory to be away", BOOT_TIMEOUT, away)?;
        Ok(())
    }
}

/// proc_pid_status(5): `RssFile:   1234 kB`.
fn file_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

impl Rival for OfLibvirt {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn dir(&self) -> PathBuf {
        match self.way {
            Way::Managed => self.libvirtd.state_dir().join("qemu/save"),
            Way::PagedOut => self.libvirtd.state_dir().join("qemu/ram"),
            Way::RamFile => self.daemon.state_dir().join("domains"),
        }
    }

    fn sleep(&mut self) -> Result<()> {
        let outcome = self.daemon.sleep(dormouse::NAME)?;
        ensure!(outcome.state == MachineState::Asleep, "it is {}: {}", outcome.state, outcome.detail);
        self.own_account = Some(Duration::from_millis(outcome.took_ms));
        if self.way == Way::PagedOut { self.wait_away() } else { wait_gone(&self.lab) }
    }

    fn arm(&mut self) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.daemon.wait_state(dormouse::NAME, MachineState::Active, dormouse::PATIENCE)?;
        Ok(())
    }

    fn own_account(&self) -> Option<Duration> {
        self.own_account
    }
}
