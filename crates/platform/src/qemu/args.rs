//! QEMU's command line, from a machine's definition.
//!
//! Boot and load have the same devices in the same order: a saved state fits no others. All
//! files come as inherited descriptors with fixed numbers, so that QEMU needs no right to open
//! any path and the machine's directory stays closed to it.

use std::{os::unix::fs::FileTypeExt, path::Path};

use serde_json::json;

use dormouse_machine::spec::{DiskFormat, DiskSpec, MachineType, MemoryBacking};

use super::config::QemuConfig;

/// The listening socket of the monitor.
pub(super) const MONITOR_FD: i32 = 3;
/// The RAM file.
pub(super) const RAM_FD: i32 = 4;
/// The machine's lock. QEMU does not know of it: it is only to be open while the process lives.
pub(super) const LOCK_FD: i32 = 5;
/// The saved state to load.
pub(super) const STATE_FD: i32 = 6;
/// The kernel to boot.
pub(super) const KERNEL_FD: i32 = 7;
/// Its initial RAM disk.
pub(super) const INITRD_FD: i32 = 8;
/// The console's log.
pub(super) const CONSOLE_FD: i32 = 9;
/// The first tap; the others follow.
pub(super) const TAP_FD: i32 = 16;
/// The first disk image; the others follow.
pub(super) const DISK_FD: i32 = 64;

/// All but `obsolete=allow`: QEMU needs none of these once it has its files.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What [`super::config::Accel`] came to be on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Kvm,
    Tcg,
}

impl Engine {
    const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg"],
        }
    }
}

/// How the process starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The guest boots.
    Boot,
    /// It waits for a state that was saved on this board, and then for `cont`.
    Load { board: String },
}

/// The whole command line, without the program.
pub(super) fn command_line(config: &QemuConfig, engine: Engine, start: &Start) -> Vec<String> {
    let mut args = host_side(config);
    args.extend(["-machine".into(), machine(config, start)]);
    args.extend(device_args(config, engine));
    match start {
        Start::Boot => args.extend(kernel(config)),
        Start::Load { .. } => args.extend(["-incoming", "defer", "-S"].map(String::from)),
    }
    args
}

/// What a saved state must fit: the devices, in words that can be compared.
pub(super) fn devices(config: &QemuConfig, engine: Engine) -> String {
    let board = match config.qemu.machine {
        MachineType::Q35 => "q35",
        MachineType::Microvm => "microvm",
    };
    let images = config.qemu.disks.iter().map(|d| format!("; {}", d.image.display())).collect::<String>();
    format!("{board} {}{images}", device_args(config, engine).join(" "))
}

/// What the guest does not see.
fn host_side(config: &QemuConfig) -> Vec<String> {
    let name = format!("guest={},debug-threads=on", config.name);
    let monitor = format!("socket,id=qmp,fd={MONITOR_FD},server=on,wait=off");
    let console_fd = format!("fd={CONSOLE_FD},set={CONSOLE_FD}");
    let console = format!("file,id=console,path=/dev/fdset/{CONSOLE_FD},append=on");
    let mut args: Vec<String> = [
        ["-name", &name],
        ["-display", "none"],
        ["-sandbox", SANDBOX],
        ["-chardev", &monitor],
        ["-mon", "chardev=qmp,mode=control"],
        ["-add-fd", &console_fd],
        ["-chardev", &console],
    ]
    .concat()
    .into_iter()
    .map(String::from)
    .collect();
    args.extend(["-nodefaults".into(), "-no-user-config".into()]);
    for (fd, _) in (DISK_FD..).zip(&config.qemu.disks) {
        args.extend(["-add-fd".into(), format!("fd={fd},set={fd}")]);
    }
    args
}

fn machine(config: &QemuConfig, start: &Start) -> String {
    let options = match config.qemu.machine {
        MachineType::Q35 => "",
        // Without them it has neither a power button nor PCI.
        MachineType::Microvm => ",acpi=on,pcie=on",
    };
    let board = match (start, config.qemu.machine) {
        (Start::Load { board }, _) => board,
        (Start::Boot, MachineType::Q35) => "q35",
        (Start::Boot, MachineType::Microvm) => "microvm",
    };
    format!("{board}{options},memory-backend=ram")
}

fn device_args(config: &QemuConfig, engine: Engine) -> Vec<String> {
    let mut args: Vec<String> = engine.args().iter().map(|a| (*a).to_owned()).collect();
    let mut add = |key: &str, value: String| args.extend([key.to_owned(), value]);
    add("-smp", config.qemu.cpus.to_string());
    add("-m", format!("{}B", config.qemu.memory));
    add("-object", memory(config));
    add("-serial", "chardev:console".into());
    for (n, interface) in config.interfaces.iter().enumerate() {
        let fd = TAP_FD.saturating_add(i32::try_from(n).unwrap_or(i32::MAX));
        add("-netdev", format!("tap,id=net{n},fd={fd},vhost=off"));
        add("-device", format!("virtio-net-pci,netdev=net{n},mac={},romfile=", interface.mac));
    }
    // Boot index 0 is the kernel's.
    for (n, disk) in config.qemu.disks.iter().enumerate() {
        add("-blockdev", blockdev(n, disk));
        add("-device", format!("virtio-blk-pci,drive=disk{n},bootindex={}", n + 1));
    }
    if !config.preallocate {
        // Holes in the RAM file where the guest frees memory.
        add("-device", "virtio-balloon-pci,free-page-reporting=on".into());
    }
    args
}

fn memory(config: &QemuConfig) -> String {
    let size = config.qemu.memory;
    match config.memory_backing {
        MemoryBacking::File => {
            format!("memory-backend-file,id=ram,size={size}B,mem-path=/proc/self/fd/{RAM_FD},share=on")
        }
        MemoryBacking::Anonymous => format!("memory-backend-ram,id=ram,size={size}B"),
    }
}

fn blockdev(n: usize, disk: &DiskSpec) -> String {
    let fd = DISK_FD.saturating_add(i32::try_from(n).unwrap_or(i32::MAX));
    let driver = match disk.format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    };
    let protocol = if is_block_device(&disk.image) { "host_device" } else { "file" };
    json!({
        "driver": driver,
        "node-name": format!("disk{n}"),
        "read-only": disk.readonly,
        "discard": "unmap",
        "file": { "driver": protocol, "filename": format!("/dev/fdset/{fd}"), "discard": "unmap" },
    })
    .to_string()
}

fn is_block_device(image: &Path) -> bool {
    std::fs::metadata(image).is_ok_and(|m| m.file_type().is_block_device())
}

/// `-kernel` costs 7 ms and a resuming guest has no use for it.
fn kernel(config: &QemuConfig) -> Vec<String> {
    let mut args = Vec::new();
    if config.qemu.kernel.is_some() {
        args.extend(["-kernel".into(), format!("/proc/self/fd/{KERNEL_FD}")]);
    }
    if config.qemu.initrd.is_some() {
        args.extend(["-initrd".into(), format!("/proc/self/fd/{INITRD_FD}")]);
    }
    if let (Some(_), Some(cmdline)) = (&config.qemu.kernel, &config.qemu.cmdline) {
        args.extend(["-append".into(), cmdline.clone()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Settings;
    use dormouse_machine::spec::{MachineSpec, PlatformSpec};

    fn config(more: &str) -> QemuConfig {
        let text = format!(
            "name = \"web\"\n[qemu]\nmemory = \"256MiB\"\nkernel = \"k\"\ncmdline = \"a,b\"\n\
             disk = [{{ image = \"a,b.qcow2\" }}, {{ image = \"b.raw\", readonly = true }}]\n{more}\n\
             [[interface]]\nmac = \"52:54:00:00:00:02\"\nbridge = \"br0\"\n"
        );
        let spec = MachineSpec::from_toml(&text, Path::new("/m")).unwrap();
        let PlatformSpec::Qemu(qemu) = &spec.platform else { unreachable!("the file says [qemu]") };
        QemuConfig::from_spec(&spec, qemu, &Settings::default())
    }

    #[test]
    fn a_load_has_the_devices_of_the_boot_and_no_kernel() {
        let config = config("");
        let boot = command_line(&config, Engine::Tcg, &Start::Boot);
        let load = command_line(&config, Engine::Tcg, &Start::Load { board: "q35".into() });
        let common = boot.iter().zip(&load).take_while(|(a, b)| a == b).count();
        assert_eq!(boot[common..], ["-kernel", "/proc/self/fd/7", "-append", "a,b"]);
        assert_eq!(load[common..], ["-incoming", "defer", "-S"]);
    }

    #[test]
    fn no_path_reaches_the_command_line() {
        let args = command_line(&config(""), Engine::Tcg, &Start::Boot);
        assert!(args.iter().all(|a| !a.contains("/m/")), "{args:?}");
    }

    #[test]
    fn what_the_guest_sees_tells_states_apart_and_what_it_does_not_see_does_not() {
        let devices = |more: &str, engine| devices(&config(more), engine);
        let plain = devices("", Engine::Tcg);
        assert_ne!(plain, devices("", Engine::Kvm));
        assert_ne!(plain, devices("cpus = 2", Engine::Tcg));
        assert_ne!(plain, devices("memory_backing = \"anonymous\"", Engine::Tcg));
        assert_eq!(plain, devices("initrd = \"other\"", Engine::Tcg));
    }
}
