//! `virsh managedsave` and `virsh start`, with a libvirtd of the lab's own.
//!
//! libvirt holds no packets, so that the one that woke the guest is handed to it again once `virsh start` is
//! done; without that favour the client would wait for its own retransmission, a second or three.

use super::{BOOT_TIMEOUT, Machine, Rival, trigger::Trigger, wait_gone};
use anyhow::{Context, Result, ensure};
use dormouse_lab::{Domain, Guest, Lab, Libvirtd};
use dormouse_sys::PacketSocket;
use std::path::PathBuf;

const DOMAIN: &str = "rival";
const TAP: &str = "rival0";

/// A guest that libvirt runs.
pub(crate) struct Libvirt {
    libvirtd: Libvirtd,
    waking: Option<Trigger<()>>,
    lab: Lab,
}

impl Libvirt {
    pub(crate) fn boot(machine: &Machine) -> Result<Self> {
        let lab = Lab::new("libvirt")?;
        let libvirtd = Libvirtd::start(&lab)?;
        let guest = Guest::new(DOMAIN, 2).dirty(machine.dirty);
        let domain = Domain::new(guest).memory(machine.mib()).tap(TAP);
        libvirtd.define(&lab, &machine.image, &domain)?;
        libvirtd.virsh(&["start", DOMAIN])?;
        domain.wait_ready(&lab, 1, BOOT_TIMEOUT)?;
        Ok(Self { libvirtd, waking: None, lab })
    }
}

impl Rival for Libvirt {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn dir(&self) -> PathBuf {
        self.libvirtd.state_dir()
    }

    fn sleep(&mut self) -> Result<()> {
        self.libvirtd.virsh(&["managedsave", DOMAIN])?;
        wait_gone(&self.lab)
    }

    fn arm(&mut self) -> Result<()> {
        let mut start = self.libvirtd.command(&["start", DOMAIN]);
        self.waking = Some(Trigger::arm(self.lab.switch(), move |(header, frame)| {
            let out = start.output().context("cannot run virsh")?;
            ensure!(out.status.success(), "virsh start: {}", String::from_utf8_lossy(&out.stderr).trim());
            let socket = PacketSocket::open_inject(TAP, false, 1 << 16)?;
            Ok(socket.send(&header, &frame)?)
        })?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.waking.take().context("it was not armed")?.result()
    }
}
