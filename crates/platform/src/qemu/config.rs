//! What the driver must know of a host and of a machine.

use std::{path::PathBuf, time::Duration};

use dormouse_machine::spec::{InterfaceSpec, MachineSpec, MachineType, MemoryBacking, QemuSpec};
use dormouse_types::MachineName;

use crate::Error;

/// What is the same for all machines of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Each machine has a directory of its own in here.
    pub machines_dir: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// The user that QEMU runs as. Where there is none of this name, `nobody`; without root, our own.
    pub user: String,
    /// How long QEMU may take to answer or to start.
    pub answer_timeout: Duration,
    /// Where a guest's memory lives, if its file does not say.
    pub memory_backing: MemoryBacking,
    /// Reserve RAM files whole at boot, if a machine's file does not say.
    pub preallocate: bool,
    /// The longest that writing or reading a state may stand still, without a byte of progress.
    pub stall_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            machines_dir: "/var/lib/dormouse/machines".into(),
            program: "qemu-system-x86_64".into(),
            user: "dormouse-qemu".into(),
            memory_backing: MemoryBacking::File,
            preallocate: false,
            answer_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// One machine, all paths absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    /// Its name.
    pub name: MachineName,
    /// What it is made of.
    pub qemu: QemuSpec,
    /// Its network interfaces, in order.
    pub interfaces: Vec<InterfaceSpec>,
    /// Where its memory lives.
    pub memory_backing: MemoryBacking,
    /// Reserve its RAM file whole at boot.
    pub preallocate: bool,
}

impl QemuConfig {
    /// What of a machine's specification is QEMU's; what its file leaves open is as `settings` say.
    #[must_use]
    pub fn from_spec(spec: &MachineSpec, qemu: &QemuSpec, settings: &Settings) -> Self {
        Self {
            name: spec.name.clone(),
            memory_backing: qemu.memory_backing.unwrap_or(settings.memory_backing),
            preallocate: qemu.preallocate.unwrap_or(settings.preallocate),
            qemu: qemu.clone(),
            interfaces: spec.interfaces.clone(),
        }
    }

    /// Refuses what QEMU cannot do; the rest was checked when the file was read.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Unsupported(why.to_owned()));
        if self.qemu.machine == MachineType::Microvm && self.qemu.kernel.is_none() {
            return refuse(
                "qemu.kernel: a microvm boots only from a kernel; give one, or use machine = \"q35\"",
            );
        }
        if self.interfaces.len() > MAX_DEVICES || self.qemu.disks.len() > MAX_DEVICES {
            return refuse("a machine has at most 24 interfaces and 24 disks");
        }
        Ok(())
    }
}

/// Of each kind: more do not fit on the board's bus.
const MAX_DEVICES: usize = 24;
