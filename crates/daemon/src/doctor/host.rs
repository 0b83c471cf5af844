//! Privileges, KVM, the state directory and the socket.

use std::{fs, io, path::Path};

use bytesize::ByteSize;
use dormouse_api_types::Check;
use nix::{
    sys::{
        statfs::{
            BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs,
        },
        statvfs::statvfs,
    },
    unistd::{Group, geteuid},
};

use super::{fail, ok, warn};

/// Capabilities by their number in `linux/capability.h`, and what is lost without them.
const NEEDED: [(u32, &str, &str); 6] = [
    (12, "CAP_NET_ADMIN", "taps, forwarding entries"),
    (13, "CAP_NET_RAW", "packet sockets"),
    (7, "CAP_SETUID", "QEMU as a user of its own"),
    (6, "CAP_SETGID", "QEMU as a user of its own"),
    (19, "CAP_SYS_PTRACE", "finding the taps of running machines after a restart"),
    (39, "CAP_BPF", "the eBPF handover"),
];

/// Less than this, and machines will soon have no room to sleep.
const LOW_SPACE: u64 = 1 << 30;

/// May the daemon do what it has to?
pub(super) fn capabilities() -> Check {
    let name = "privileges";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective_capabilities(&status) else {
        return warn(name, "cannot read the capabilities in /proc/self/status", "mount /proc");
    };
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(bit, _, _)| effective >> bit & 1 == 0)
        .map(|(_, word, use_)| format!("{word} ({use_})"))
        .collect();
    let user = format!("uid {}", geteuid());
    match missing.as_slice() {
        [] => ok(name, format!("{user}, all capabilities that are needed")),
        missing => fail(
            name,
            format!("{user}, without {}", missing.join(", ")),
            "run dormoused by its systemd unit, or as root",
        ),
    }
}

/// The `CapEff` line of `/proc/PID/status` (proc(5)).
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Is there KVM, and can it be used?
pub(super) fn kvm() -> Check {
    let name = "kvm";
    let slow = "guests run in software (TCG), many times slower";
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // /dev/kvm can exist and open without being able to run a stock kernel: the flag tells.
    if !has_flag(&flags, "vmx") && !has_flag(&flags, "svm") {
        let found = format!("the processor shows neither vmx nor svm: {slow}");
        return warn(name, found, "turn on virtualization in the firmware, or nesting in the host above");
    }
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => ok(name, "/dev/kvm is usable"),
        Err(error) => warn(
            name,
            format!("/dev/kvm: {error}: {slow}"),
            "modprobe kvm_intel or kvm_amd, and let the QEMU user into the group kvm",
        ),
    }
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|word| word == flag))
}

/// Is the state directory on a disk, with space?
pub(super) fn state_dir(path: &Path) -> Check {
    let name = "state-dir";
    let (found, space) = match (statfs(path), statvfs(path)) {
        (Ok(found), Ok(space)) => (found, space),
        (Err(error), _) | (_, Err(error)) => {
            return fail(
                name,
                format!("{}: {error}", path.display()),
                "make the directory, or set state_dir",
            );
        }
    };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let kind = match found.filesystem_type() {
        EXT4_SUPER_MAGIC => "ext4",
        XFS_SUPER_MAGIC => "xfs",
        BTRFS_SUPER_MAGIC => "btrfs",
        OVERLAYFS_SUPER_MAGIC => "overlay",
        TMPFS_MAGIC => "tmpfs",
        _ => "another file system",
    };
    let told = format!("{} on {kind}, {} free", path.display(), ByteSize(free).display().iec());
    if found.filesystem_type() == TMPFS_MAGIC {
        return warn(
            name,
            format!("{told}: a sleeping machine's memory is still in memory, and lost with a power cut"),
            "set state_dir to a directory on a disk",
        );
    }
    if free < LOW_SPACE {
        return warn(name, told, "make room: machines that find no space for their state stay awake");
    }
    ok(name, told)
}

/// Who can use the API?
pub(super) fn socket(path: &Path, group: &str) -> Check {
    let name = "socket";
    match (Group::from_name(group), fs::symlink_metadata(path)) {
        (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            fail(name, format!("{}: {error}", path.display()), "let root reach the socket's folder")
        }
        (Ok(Some(_)), _) => ok(name, format!("{}, for root and the group {group}", path.display())),
        _ => warn(
            name,
            format!("{}, for root alone: there is no group {group}", path.display()),
            format!("groupadd --system {group}, add users to it, and restart dormoused"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::CheckStatus;

    #[test]
    fn reads_capabilities() {
        let status = "Name:\tx\nCapEff:\t00000000a80435fb\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(0xa804_35fb));
        assert_eq!(effective_capabilities("CapEff:\tx"), None);
    }

    #[test]
    fn finds_whole_flags_only() {
        let cpuinfo = "processor\t: 0\nflags\t\t: fpu vmx_ept svm\n";
        assert!(has_flag(cpuinfo, "svm") && !has_flag(cpuinfo, "vmx"));
    }

    #[test]
    fn a_missing_state_dir_fails_with_a_fix() {
        let check = state_dir(Path::new("/nonexistent/dormouse"));
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.found.contains("/nonexistent/dormouse") && check.fix.is_some());
    }

    #[test]
    fn a_missing_group_is_said() {
        let check = socket(Path::new("/run/x.sock"), "no-such-group-here");
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.found.contains("no-such-group-here"));
    }
}
