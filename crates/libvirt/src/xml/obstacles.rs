//! What stands in the way of a domain's sleep.
//!
//! Sources: libvirt 9.0, `qemuMigrationSrcIsAllowed` (what forbids a save there), `virDomainManagedSave`,
//! `virDomainPMSuspendForDuration`; QEMU 7.2, its migration blockers.

use std::collections::BTreeMap;

use dormouse_platform::Obstacle;
use dormouse_types::Depth;

use super::{Description, Network};
use crate::ram_file::are_ours;

/// What must be known of a domain beside its XML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// It stays defined when it is shut down.
    pub is_persistent: bool,
    /// libvirtd starts it at its own start.
    pub has_autostart: bool,
    /// How many snapshots it has.
    pub snapshots: u32,
    /// A job works on its disks: a copy, a commit, a backup.
    pub has_block_job: bool,
    /// libvirt's networks, by name.
    pub networks: BTreeMap<String, Network>,
}

impl Default for Circumstances {
    /// Those of an ordinary domain, without networks of libvirt.
    fn default() -> Self {
        Self {
            is_persistent: true,
            has_autostart: false,
            snapshots: 0,
            has_block_job: false,
            networks: BTreeMap::new(),
        }
    }
}

/// What stands in the way of the domain's sleep, and what its user should know of.
#[must_use]
pub fn obstacles(domain: &Description, now: &Circumstances) -> Vec<Obstacle> {
    let mut found = Vec::new();
    hypervisor(domain, &mut found);
    interfaces(domain, now, &mut found);
    shared_with_host(domain, &mut found);
    host_devices(domain, &mut found);
    state_elsewhere(domain, &mut found);
    memory(domain, &mut found);
    power(domain, &mut found);
    circumstances(domain, now, &mut found);
    found
}

const SAVED: &[Depth] = &[Depth::Saved];
const OFF: &[Depth] = &[Depth::Off];
const PMSUSPENDED: &[Depth] = &[Depth::Pmsuspended];

fn hypervisor(domain: &Description, found: &mut Vec<Obstacle>) {
    if !matches!(&*domain.kind, "kvm" | "qemu" | "test") {
        let reason = "only domains of QEMU and KVM are put to sleep";
        found.push(Obstacle::to(&Depth::ALL, format!("domain type {}", domain.kind), reason));
    }
}

fn interfaces(domain: &Description, now: &Circumstances, found: &mut Vec<Obstacle>) {
    for interface in domain.interfaces.iter().filter(|interface| interface.is_up) {
        let what = format!("interface {}", interface.mac);
        if let Err(why) = interface.bridge(&now.networks) {
            let depths: &[Depth] = if why.is_harmless { &[] } else { &Depth::ALL };
            let reason = if why.is_harmless {
                why.reason
            } else {
                format!("nobody could answer for it while the guest sleeps: {}", why.reason)
            };
            found.push(Obstacle::to(depths, what, reason).fix(why.fix));
        } else if interface.is_isolated {
            let reason = "it is isolated on its bridge; while the guest sleeps, other isolated guests can \
                          reach it, and their frames can wake it";
            found.push(Obstacle::warning(what, reason).fix("name who may wake it: wake.on, with `from`"));
        }
    }
}

fn shared_with_host(domain: &Description, found: &mut Vec<Obstacle>) {
    for share in &domain.filesystems {
        let what = format!("filesystem {}", share.target);
        let (reason, fix) = match &*share.driver {
            "virtiofs" => (
                "virtiofs keeps what the guest has open in a process of the host, which a saved state lacks",
                "share the folder over the network, or sleep paused",
            ),
            "path" | "handle" => (
                "QEMU saves no guest that has a 9p folder mounted",
                "share the folder over the network, or sleep paused",
            ),
            _ => continue,
        };
        found.push(Obstacle::to(SAVED, what, reason).fix(fix));
    }
    for name in &domain.shared_memory {
        let reason = "memory that others own (ivshmem) is not a part of a saved state";
        found.push(Obstacle::to(SAVED, format!("shmem {name}"), reason).fix("sleep paused"));
    }
    for disk in domain.disks.iter().filter(|disk| disk.kind == "vhostuser") {
        let name = disk.target.as_deref().unwrap_or("?");
        let reason = "its requests are in the hands of a process of the host (vhost-user)";
        let obstacle = Obstacle::to(SAVED, format!("disk {name}"), reason);
        found.push(obstacle.fix("use a disk of QEMU's own, or sleep paused"));
    }
    if domain.has_vsock {
        let reason = "connections between guest and host by vsock end when it sleeps saved or off";
        found.push(Obstacle::warning("vsock", reason));
    }
}

fn host_devices(domain: &Description, found: &mut Vec<Obstacle>) {
    for device in &domain.host_devices {
        let which = device.address.as_deref().unwrap_or("without an address");
        let what = format!("hostdev {} {which}", device.kind);
        let obstacle = match &*device.kind {
            "usb" => Obstacle::warning(
                what,
                "the guest sees a device of the host unplugged and plugged in again when it wakes from saved",
            ),
            "mdev" => Obstacle::to(
                SAVED,
                what,
                "the state of a mediated device is in the host's card, and cannot be saved",
            )
            .fix("sleep paused or off, or remove the device"),
            _ => Obstacle::to(
                SAVED,
                what,
                "the state of a device of the host that was given to the guest cannot be saved",
            )
            .fix("sleep paused or off, or remove the device"),
        };
        found.push(obstacle);
    }
}

/// State that is not in the guest's memory, nor where QEMU would save it.
fn state_elsewhere(domain: &Description, found: &mut Vec<Obstacle>) {
    if let Some(kind) = &domain.launch_security {
        let reason = "its memory is encrypted with a key of the processor's, and cannot be read to be saved";
        found.push(Obstacle::to(SAVED, format!("launchSecurity {kind}"), reason).fix("sleep paused or off"));
    }
    if let Some(tpm) = domain.tpm.as_ref().filter(|tpm| tpm.backend != "emulator") {
        let reason = "the host's TPM cannot be saved with the guest";
        let obstacle = Obstacle::to(SAVED, format!("tpm {}", tpm.backend), reason);
        found.push(obstacle.fix("use an emulated one (swtpm), or sleep paused or off"));
    }
    if domain.has_sgx {
        let reason = "memory of Intel SGX cannot be read to be saved";
        found.push(Obstacle::to(SAVED, "memory sgx-epc", reason).fix("sleep paused or off"));
    }
    if domain.has_host_graphics {
        let reason = "3D acceleration keeps the guest's pictures in the host's graphics card";
        let obstacle = Obstacle::to(SAVED, "video accel3d", reason);
        let fix = format!("virt-xml {:?} --edit --video accel3d=no", domain.name);
        found.push(obstacle.fix(format!("turn acceleration off: {fix}")));
    }
    if domain.cpu_unmigratable {
        let reason = "QEMU saves no guest that sees an invariant TSC of no stated frequency";
        let fix =
            "remove the feature invtsc (and migratable='off'), or state <timer name='tsc' frequency=...>";
        found.push(Obstacle::to(SAVED, "cpu invtsc", reason).fix(fix));
    }
}

fn memory(domain: &Description, found: &mut Vec<Obstacle>) {
    if domain.backing.huge_pages {
        let reason = "while it sleeps paused, its pages are of use to nobody; when it sleeps saved, they may \
                      be taken by another guest, and its wake then fails for want of them";
        let fix = "let the host's pool have pages for all guests that may be awake (vm.nr_hugepages)";
        found.push(Obstacle::warning("memoryBacking hugepages", reason).fix(fix));
    }
    if domain.backing.locked {
        let reason = "its memory may not be swapped, so that depth paused gives none of it back";
        found.push(Obstacle::warning("memoryBacking locked", reason).fix("sleep saved"));
    }
    if domain.backing.shared && domain.backing.source.as_deref() == Some("file") {
        let reason = "its memory is a file that programs of the host can map: one that does sees it stand \
                      still while the guest sleeps, and a new file after a wake from saved";
        found.push(Obstacle::warning("memoryBacking shared file", reason));
    }
    if !domain.qemu_arguments.is_empty() && !are_ours(&domain.qemu_arguments) {
        let reason = "what it adds to QEMU is not known to libvirt, nor to Dormouse: try a sleep by hand";
        found.push(Obstacle::warning("qemu:commandline", reason));
    }
}

fn power(domain: &Description, found: &mut Vec<Obstacle>) {
    let is_pc = matches!(domain.arch.as_deref(), None | Some("x86_64" | "i686"))
        && !domain.machine.as_deref().is_some_and(|machine| machine.starts_with("microvm"));
    if !is_pc {
        let board = domain.machine.as_deref().or(domain.arch.as_deref()).unwrap_or("its board");
        found.push(Obstacle::to(PMSUSPENDED, board, "QEMU has ACPI S3 on PCs only"));
    } else if domain.pm.to_memory == Some(false) {
        let obstacle = Obstacle::to(PMSUSPENDED, "pm suspend-to-mem", "ACPI S3 is switched off");
        let fix = format!("virt-xml {:?} --edit --pm suspend_to_mem.enabled=yes", domain.name);
        found.push(obstacle.fix(format!("{fix}, then shut it down and start it")));
    }
    if !domain.has_guest_agent() {
        let reason = "without it the guest is asked to suspend itself by its sleep key only, which it may take for \
                      something else, and nobody sets its clock";
        let fix = "add its channel (virt-xml NAME --add-device --channel unix,target.type=virtio,\
                   target.name=org.qemu.guest_agent.0) and install qemu-guest-agent in the guest";
        let fix = fix.replace("NAME", &format!("{:?}", domain.name));
        found.push(Obstacle::warning("guest agent", reason).fix(fix));
    }
    if let Some(action @ ("restart" | "preserve" | "rename-restart")) = domain.on_poweroff.as_deref() {
        let reason = "libvirt does not let it be off when the guest shuts itself down";
        let obstacle = Obstacle::to(OFF, format!("on_poweroff {action}"), reason);
        found.push(obstacle.fix("virsh edit: <on_poweroff>destroy</on_poweroff>"));
    }
}

fn circumstances(domain: &Description, now: &Circumstances, found: &mut Vec<Obstacle>) {
    if !now.is_persistent {
        let reason = "libvirt forgets it as soon as it does not run";
        let fix =
            format!("make it persistent: virsh dumpxml {0} > {0}.xml; virsh define {0}.xml", domain.name);
        found.push(Obstacle::to(&[Depth::Saved, Depth::Off], "transient domain", reason).fix(fix));
    }
    let job = domain.disks.iter().find_map(|disk| Some((disk.target.as_deref()?, disk.job.as_deref()?)));
    if now.has_block_job || job.is_some() {
        let what = job.map_or_else(|| "block job".into(), |(disk, job)| format!("block job {job} of {disk}"));
        let reason = "libvirt saves no domain while a job works on its disks";
        let fix = format!("wait until it is done, or end it: virsh blockjob {} DISK --abort", domain.name);
        found.push(Obstacle::to(SAVED, what, reason).fix(fix));
    }
    if now.snapshots > 0 {
        let reason =
            "reverting to one while it sleeps gives up the state that it sleeps with; Dormouse follows";
        found.push(Obstacle::warning(format!("{} snapshots", now.snapshots), reason));
    }
    if now.has_autostart {
        let reason = "once after each boot of the host libvirt starts it: from its managed save if it has one, else \
                      afresh, so that what it had in memory is lost if it slept beside a RAM file; it falls \
                      asleep again when it is idle";
        let fix = format!("leave its start to its first packet: virsh autostart --disable {}", domain.name);
        found.push(Obstacle::warning("autostart", reason).fix(fix));
    }
}
