//! What a machine is, as its file says, in checked and typed values.
//!
//! [`MachineSpec::from_toml`] reads the file and reports everything that is wrong with it at once.
//! As JSON the specification is kept in the registry; durations are `{secs, nanos}` there, sizes
//! are bytes. What the file leaves to the daemon's configuration is `None` here.

mod deeper;
mod error;
mod file;
mod keep;
mod label;
mod policy;
mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dormouse_types::{Depth, LeasePolicy, MacAddr, MachineName, Matcher, Service, WakeRule, What};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use deeper::Deeper;
pub use error::{SpecError, SpecErrors};
pub use keep::{ConnectionRule, KeepSpec};
pub use policy::PolicySpec;

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its name, unique on the host.
    pub name: MachineName,
    /// Whose it is, as usage is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What the user calls it by, as usage is told: `project = "shop"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What runs it.
    pub platform: PlatformSpec,
    /// Its network interfaces, in the order that the guest sees them.
    pub interfaces: Vec<InterfaceSpec>,
    /// When and how it goes to sleep.
    pub sleep: SleepSpec,
    /// What wakes it.
    pub wake: WakeSpec,
    /// TCP services that are spoken for it while it sleeps, each at a port of its own.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Programs that are asked about frames while it sleeps, each named once.
    #[serde(default)]
    pub responders: Vec<ResponderSpec>,
    /// What is held for it.
    pub limits: LimitsSpec,
}

/// What runs a machine: the table of that name in its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformSpec {
    /// A QEMU process of ours.
    Qemu(QemuSpec),
    /// A domain of libvirt.
    Libvirt(LibvirtSpec),
}

impl PlatformSpec {
    /// The platform in a word: the table's name.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
            Self::Libvirt(_) => "libvirt",
        }
    }

    /// The memory that the guest sees, in bytes; zero if only its platform knows.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        match self {
            Self::Qemu(qemu) => qemu.memory,
            Self::Libvirt(LibvirtSpec { memory: Some(memory), .. }) => *memory,
            Self::Libvirt(_) => 0,
        }
    }

    /// Is the guest's memory given back to the host while it sleeps and its process stays?
    #[must_use]
    pub const fn pages_out(&self) -> bool {
        match self {
            Self::Qemu(qemu) => qemu.page_out,
            Self::Libvirt(libvirt) => libvirt.page_out,
        }
    }
}

/// `[libvirt]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibvirtSpec {
    /// The domain's name.
    pub domain: String,
    /// Its UUID, so that it is known when it is renamed, and another of its name is told from it.
    pub uuid: Option<Uuid>,
    /// The connection; `None` if the one of the daemon's configuration.
    pub uri: Option<String>,
    /// Bytes that the guest may have at most, as the domain had them when it was imported.
    pub memory: Option<u64>,
    /// How it is saved.
    pub save: LibvirtSave,
    /// Give the memory of a paused guest back to the host, page by page, into its file or swap.
    pub page_out: bool,
}

/// How a domain of libvirt is put to sleep at depth `saved`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LibvirtSave {
    /// By libvirt's managed save: nothing of the domain's definition is changed.
    #[default]
    Managed,
    /// By a RAM file of ours: wakes as fast whatever the memory's size. Adds QEMU arguments to the
    /// domain's definition.
    RamFile,
}

/// `[qemu]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuSpec {
    /// Bytes; a whole number of MiB.
    pub memory: u64,
    /// Virtual processors, 1 to 255.
    pub cpus: u16,
    /// The kind of board.
    pub machine: MachineType,
    /// Disks, in the order that the guest sees them.
    pub disks: Vec<DiskSpec>,
    /// A kernel to boot directly; else the first disk is booted.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk; only with a kernel.
    pub initrd: Option<PathBuf>,
    /// Its command line; only with a kernel.
    pub cmdline: Option<String>,
    /// How the guest's instructions are executed.
    pub accel: Accel,
    /// Where the guest's memory lives.
    #[serde(default)]
    pub memory_backing: Option<MemoryBacking>,
    /// Reserve the whole RAM file on disk at boot: a full disk then refuses the boot, and cannot
    /// kill a running guest that touches a page which the sparse file lacks.
    #[serde(default)]
    pub preallocate: Option<bool>,
    /// Give the memory of a paused guest back to the host, page by page, into its file or swap.
    #[serde(default)]
    pub page_out: bool,
}

/// Where a guest's memory lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryBacking {
    /// In a file on the host: a sleep writes only the devices' state, whatever the memory's size.
    #[default]
    File,
    /// In anonymous memory: a sleep writes all of it. For file systems that cannot share a mapping.
    Anonymous,
}

/// QEMU's machine types that we know how to put to sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineType {
    /// A PC with PCI Express.
    #[default]
    Q35,
    /// The smallest board, without firmware tables of a PC.
    Microvm,
}

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM where the host can, else TCG.
    #[default]
    Auto,
    /// By the processor itself.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

/// An entry of `qemu.disk`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// The image's path.
    pub image: PathBuf,
    /// Its format; never guessed from its contents, which the guest can write.
    pub format: DiskFormat,
    /// The guest may not write.
    pub readonly: bool,
}

/// The format of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU's own.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

/// `[[interface]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSpec {
    /// The guest's Ethernet address; not a group address, not zero.
    pub mac: MacAddr,
    /// The host's bridge that it is in: a link's name of 1 to 15 octets.
    pub bridge: String,
    /// The guest's addresses there; when empty they are learned from its traffic.
    pub addresses: Vec<IpAddr>,
}

/// `[sleep]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SleepSpec {
    /// How long it must be idle; `None` (in the file: `never`) if it sleeps only by a command.
    pub idle_after: Option<Duration>,
    /// How deep it goes by itself.
    pub depth: Depth,
    /// Idle means less CPU time than this, in percent of one processor.
    pub cpu_below: f64,
    /// Idle means less network traffic than this, in bytes a second.
    pub network_below: u64,
    /// Idle means less disk traffic than this, in bytes a second.
    pub disk_below: u64,
    /// How long a guest that is about to sleep has to read its network queue.
    pub grace: Option<Duration>,
    /// What decides when it sleeps and wakes by itself.
    #[serde(default)]
    pub policy: PolicySpec,
    /// How deep it sleeps after how long.
    #[serde(default)]
    pub deeper: Vec<Deeper>,
    /// What else keeps it awake.
    #[serde(default)]
    pub keep: KeepSpec,
}

impl Default for SleepSpec {
    fn default() -> Self {
        Self {
            idle_after: Some(Duration::from_secs(600)),
            depth: Depth::Saved,
            cpu_below: 10.0,
            network_below: 1024,
            disk_below: 16 * 1024,
            grace: None,
            policy: PolicySpec::default(),
            deeper: Vec::new(),
            keep: KeepSpec::default(),
        }
    }
}

/// `[wake]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeSpec {
    /// Frames that wake it; when empty, only commands and holds do.
    pub on: Vec<WakeRule>,
    /// Frames that are dropped while it sleeps; they come before `on`.
    #[serde(default)]
    pub ignore: Vec<Matcher>,
    /// What becomes of its DHCP lease.
    #[serde(default)]
    pub lease: LeasePolicy,
    /// How long it may take to boot until it is first heard.
    pub boot_timeout: Option<Duration>,
}

impl Default for WakeSpec {
    fn default() -> Self {
        Self {
            on: vec![WakeRule::of(What::AnyUnicast)],
            ignore: Vec::new(),
            lease: LeasePolicy::default(),
            boot_timeout: None,
        }
    }
}

/// `[[responder]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderSpec {
    /// The program's name in the daemon's configuration.
    pub name: String,
    /// The frames that it is asked about.
    pub frames: Vec<Matcher>,
}

/// `[limits]`: what may be held for it while it sleeps and wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsSpec {
    /// Frames.
    pub queue_frames: Option<u32>,
    /// Bytes of frames.
    pub queue_bytes: Option<u64>,
}

impl MachineSpec {
    /// Reads a machine file; relative paths in it start from the folder `base`.
    ///
    /// # Errors
    /// [`SpecErrors`]: everything that is wrong with the file.
    pub fn from_toml(text: &str, base: &Path) -> Result<Self, SpecErrors> {
        file::read(text, base)
    }
}

#[cfg(test)]
mod tests;
