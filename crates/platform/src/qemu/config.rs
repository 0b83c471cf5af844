//! What the driver must know of a host and of a machine.

use std::{path::PathBuf, time::Duration};

use dormouse_types::{MacAddr, MachineName};

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
    /// The longest that writing or reading a state may stand still, without a byte of progress.
    pub stall_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            machines_dir: "/var/lib/dormouse/machines".into(),
            program: "qemu-system-x86_64".into(),
            user: "dormouse-qemu".into(),
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
    /// Bytes of memory.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// The board.
    pub machine: Board,
    /// How instructions are carried out.
    pub accel: Accel,
    /// Where its memory lives.
    pub memory_backing: MemoryBacking,
    /// Reserve the whole RAM file on disk before boot: a full disk then refuses the boot, and
    /// cannot kill the running guest (SIGBUS) when it touches a page that the sparse file lacks.
    pub preallocate: bool,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
    /// A kernel to boot directly.
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk for it.
    pub initrd: Option<PathBuf>,
    /// A command line for it.
    pub cmdline: Option<String>,
    /// Its network interfaces, in order.
    pub interfaces: Vec<Interface>,
}

/// QEMU's machine type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// A PC with PCI Express.
    Q35,
    /// A small board without firmware; needs a kernel.
    Microvm,
}

/// How instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// KVM where it works, TCG elsewhere.
    Auto,
    /// By the processor.
    Kvm,
    /// In software.
    Tcg,
}

/// Where a machine's memory lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBacking {
    /// In a file in the machine's directory: a sleep writes only the devices' state.
    File,
    /// In anonymous memory: a sleep writes all of it. For file systems that cannot map shared files.
    Anonymous,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its image.
    pub image: PathBuf,
    /// The image's format. Never guessed from the content, which the guest may write.
    pub format: Format,
    /// The guest cannot write.
    pub read_only: bool,
    /// The image is a block device.
    pub block_device: bool,
}

/// An image's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// Block for block.
    Raw,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The guest's address.
    pub mac: MacAddr,
    /// The bridge that it is in.
    pub bridge: String,
}

impl QemuConfig {
    /// Refuses what QEMU cannot do.
    ///
    /// # Errors
    /// Names the key and the fix.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Unsupported(why.to_owned()));
        if self.memory < MIN_MEMORY || !self.memory.is_multiple_of(PAGE) {
            return refuse("qemu.memory: give at least 16MiB, in whole MiB");
        }
        if self.cpus == 0 {
            return refuse("qemu.cpus: give at least 1");
        }
        if self.kernel.is_none() && self.disks.is_empty() {
            return refuse("qemu: give a kernel or a disk to boot from");
        }
        if self.machine == Board::Microvm && self.kernel.is_none() {
            return refuse(
                "qemu.kernel: a microvm boots only from a kernel; give one, or use machine = \"q35\"",
            );
        }
        if self.interfaces.len() > MAX_INTERFACES {
            return refuse("interface: at most 16");
        }
        Ok(())
    }
}

/// Smaller ones do not boot.
const MIN_MEMORY: u64 = 16 << 20;
const PAGE: u64 = 1 << 20;
const MAX_INTERFACES: usize = 16;
