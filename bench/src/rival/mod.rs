//! Ways to put a guest to sleep and to wake it, all driven alike.

mod domain;
mod dormouse;
mod libvirt;
mod qemu;
mod trigger;

use anyhow::{Context, Result};
use dormouse_lab::{
    Lab, MemoryCheck,
    guest::{Image, KERNEL_OPTIONS, READY},
    wait_until,
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{OfLibvirt, Way};
pub(crate) use dormouse::Dormouse;
pub(crate) use libvirt::Libvirt;
pub(crate) use qemu::Qemu;

/// Every rival's guest has this address, in a lab of its own.
pub(crate) const IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// A guest that fills 3 GiB under emulation, beside others.
pub(crate) const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// The guest that all rivals run.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) image: Image,
    pub(crate) memory: u64,
    /// Percentage of its memory that it fills at boot, with what does not compress.
    pub(crate) dirty: u8,
}

impl Machine {
    pub(crate) fn mib(&self) -> u64 {
        self.memory >> 20
    }

    fn kernel_options(&self) -> String {
        format!("{KERNEL_OPTIONS} dm.ip={IP}/24 dm.ip6=fd77::2/64 dm.dirty={}", self.dirty)
    }
}

/// One way to sleep and wake, with a guest and a lab of its own.
pub(crate) trait Rival {
    fn lab(&self) -> &Lab;

    /// Where memory file and saved state are.
    fn dir(&self) -> PathBuf;

    /// Puts the guest to sleep; returns once its process is gone.
    fn sleep(&mut self) -> Result<()>;

    /// From now on the first packet for the guest wakes it.
    fn arm(&mut self) -> Result<()>;

    /// Waits until the wake that a packet began is over.
    fn settle(&mut self) -> Result<()>;

    /// How long it fell asleep by its own account, last time.
    fn own_account(&self) -> Option<Duration> {
        None
    }
}

/// Which rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    Dormouse,
    /// With a process that stands by.
    DormouseStandby,
    /// Reading nothing ahead.
    DormouseFaults,
    Qemu,
    Libvirt,
    /// A domain, by managed save.
    Domain,
    /// A domain, paused and paged out.
    DomainPagedOut,
    /// A domain, with a RAM file.
    DomainRamFile,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Dormouse, Self::DormouseStandby, Self::DormouseFaults, Self::Qemu, Self::Libvirt];

    /// What a domain of libvirt may be compared with.
    pub(crate) const OF_LIBVIRT: [Self; 5] =
        [Self::Dormouse, Self::Libvirt, Self::Domain, Self::DomainPagedOut, Self::DomainRamFile];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Dormouse => "Dormouse",
            Self::DormouseStandby => "Dormouse, a process standing by",
            Self::DormouseFaults => "Dormouse, nothing read ahead",
            Self::Qemu => "QEMU, migrate to a file and back",
            Self::Libvirt => "virsh managedsave / start",
            Self::Domain => "Dormouse, a domain, managed save",
            Self::DomainPagedOut => "Dormouse, a domain, paused and paged out",
            Self::DomainRamFile => "Dormouse, a domain, RAM file",
        }
    }

    /// Boots the guest in this rival's way.
    pub(crate) fn boot(self, machine: &Machine) -> Result<Box<dyn Rival>> {
        let domain = |way| OfLibvirt::boot(machine, way).map(|rival| Box::new(rival) as _);
        let booted: Result<Box<dyn Rival>> = match self {
            Self::Dormouse => Dormouse::boot(machine).map(|rival| Box::new(rival) as _),
            Self::DormouseStandby => Dormouse::boot_with_standby(machine).map(|rival| Box::new(rival) as _),
            Self::DormouseFaults => Dormouse::boot_without_list(machine).map(|rival| Box::new(rival) as _),
            Self::Qemu => Qemu::boot(machine).map(|rival| Box::new(rival) as _),
            Self::Libvirt => Libvirt::boot(machine).map(|rival| Box::new(rival) as _),
            Self::Domain => domain(Way::Managed),
            Self::DomainPagedOut => domain(Way::PagedOut),
            Self::DomainRamFile => domain(Way::RamFile),
        };
        let rival = booted.with_context(|| format!("{}: cannot boot {} MiB", self.title(), machine.mib()))?;
        // The client does not ask for the address: only Dormouse would answer that.
        let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
        let neighbour = format!("neigh replace {IP} lladdr {mac} dev eth0 nud permanent\n");
        rival.lab().client_namespace().ip(&neighbour)?;
        Ok(rival)
    }
}

/// What a client measures of one wake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake {
    pub(crate) syn_ack: Duration,
    pub(crate) first_byte: Duration,
}

/// Wakes the guest by a connection to its web server.
pub(crate) fn wake(rival: &mut dyn Rival) -> Result<Wake> {
    rival.arm()?;
    let to = SocketAddr::new(IP.into(), 80);
    let page = rival.lab().client().http_get(to, "/", Duration::from_secs(120));
    rival.settle()?;
    let page = page?;
    anyhow::ensure!(page.status == 200, "the web server says {}", page.status);
    Ok(Wake { syn_ack: page.connected, first_byte: page.first_byte })
}

/// The guest's boot, and whether its memory is what it was.
pub(crate) fn identity(rival: &dyn Rival) -> Result<(String, MemoryCheck)> {
    let client = rival.lab().client();
    Ok((client.sink(IP)?.boot_id, client.verify_memory(IP)?))
}

/// Waits until the serial console says that the guest's services run.
fn wait_ready(console: &Path) -> Result<()> {
    wait_until("the guest to boot", BOOT_TIMEOUT, || {
        Ok(fs::read(console).is_ok_and(|log| String::from_utf8_lossy(&log).contains(READY)))
    })?;
    Ok(())
}

/// Waits until no QEMU process is left in the lab.
fn wait_gone(lab: &Lab) -> Result<()> {
    wait_until("QEMU to be gone", BOOT_TIMEOUT, || Ok(lab.qemu_pids()?.is_empty()))?;
    Ok(())
}
