//! What makes the libvirt of this host slow: its starts and saves are on the way of every wake.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use dormouse_api_types::Check;
use nix::unistd::{Group, User};

use super::{ok, warn};

const CONFIG: &str = "/etc/libvirt/qemu.conf";
const CACHE: &str = "/var/cache/libvirt/qemu/capabilities";
const RUN: &str = "/run/libvirt/qemu";
/// Whom the packages of distributions run QEMU as, in this order.
const USERS: [&str; 3] = ["libvirt-qemu", "qemu", "root"];
/// A probe of QEMU that ended so long before a domain's process began was made for it.
const PROBE: Duration = Duration::from_secs(15);

/// Looks at the host's libvirt; nothing if there is none.
pub(super) fn checks() -> Vec<Check> {
    if !Path::new(CONFIG).exists() && !Path::new(RUN).exists() {
        return Vec::new();
    }
    let config = fs::read_to_string(CONFIG).unwrap_or_default();
    vec![kvm(&config), probes(Path::new(CACHE), Path::new(RUN)), format(&config), reaping(), swap()]
}

/// The value of a key of libvirt's own format, `key = "value"`.
fn value<'a>(config: &'a str, key: &str) -> Option<&'a str> {
    let line =
        config.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix('='))?;
    Some(line.trim().trim_matches('"'))
}

/// Can libvirt's QEMU open KVM? If not, libvirt takes what it knows of QEMU for outdated before every start.
fn kvm(config: &str) -> Check {
    let name = "libvirt-kvm";
    let Ok(device) = fs::metadata("/dev/kvm") else {
        return ok(name, "there is no /dev/kvm: libvirt probes QEMU once");
    };
    let named = value(config, "user").map(|user| user.trim_start_matches('+').to_owned());
    let find = |name: &str| {
        let by_id = name.parse().ok().and_then(|id: u32| User::from_uid(id.into()).ok().flatten());
        by_id.or_else(|| User::from_name(name).ok().flatten())
    };
    let user = match &named {
        Some(name) => find(name),
        None => USERS.iter().find_map(|name| find(name)),
    };
    let Some(user) = user else {
        return warn(
            name,
            "it cannot be told as whom libvirt runs QEMU",
            "set `user` in /etc/libvirt/qemu.conf",
        );
    };
    let group = Group::from_gid(device.gid().into()).ok().flatten();
    let is_member = user.gid.as_raw() == device.gid()
        || group.as_ref().is_some_and(|group| group.mem.contains(&user.name));
    let mode = device.permissions().mode();
    if may_open(mode, user.uid.is_root() || user.uid.as_raw() == device.uid(), is_member) {
        return ok(name, format!("{} can open /dev/kvm", user.name));
    }
    let group = group.map_or_else(|| device.gid().to_string(), |group| group.name);
    warn(
        name,
        format!(
            "{}, as whom libvirt runs QEMU, cannot open /dev/kvm: libvirt probes QEMU anew before every start, for seconds",
            user.name
        ),
        format!("usermod --append --groups {group} {}, and restart libvirt", user.name),
    )
}

const fn may_open(mode: u32, is_owner: bool, is_member: bool) -> bool {
    is_owner || (is_member && mode & 0o060 == 0o060) || mode & 0o006 == 0o006
}

/// Was QEMU probed for the last domain that was started, though libvirt had run for long?
fn probes(cache: &Path, run: &Path) -> Check {
    let name = "libvirt-probes";
    match (newest(cache, "xml"), newest(run, "pid")) {
        (Some(probed), Some(started)) if is_probe_for(probed, started) => {
            let took = started.duration_since(probed).unwrap_or_default();
            warn(
                name,
                format!(
                    "libvirt probed QEMU {took:?} before it started its last domain: if it does so before every \
                     start, each takes seconds"
                ),
                "let libvirt's QEMU user open /dev/kvm, see that its init reaps its children at once, and that \
                 /var/cache/libvirt can be written; after an upgrade of QEMU or libvirt once is right",
            )
        }
        (None, _) => warn(
            name,
            format!(
                "{} holds nothing: libvirt may probe QEMU before every start, for seconds",
                cache.display()
            ),
            "see that libvirt can write there; before the first start it is right",
        ),
        _ => ok(name, "libvirt remembers what it knows of QEMU"),
    }
}

fn newest(folder: &Path, extension: &str) -> Option<SystemTime> {
    let files = fs::read_dir(folder).ok()?.flatten();
    let fitting = files.filter(|file| file.path().extension().is_some_and(|found| found == extension));
    fitting.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

fn is_probe_for(probed: SystemTime, started: SystemTime) -> bool {
    started.duration_since(probed).is_ok_and(|since| since <= PROBE)
}

/// Are saves compressed?
fn format(config: &str) -> Check {
    let name = "libvirt-save";
    match value(config, "save_image_format") {
        None | Some("raw") => ok(name, "managed saves are written as they are"),
        Some(format) => warn(
            name,
            format!("managed saves are compressed by {format}: each sleep and wake waits for that"),
            "save_image_format = \"raw\" in /etc/libvirt/qemu.conf, and restart libvirt",
        ),
    }
}

/// Does the host's init take its children's ends at once? libvirt waits for that when it probes.
fn reaping() -> Check {
    let name = "init-reaps";
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        fs::read_to_string(entry.path().join("stat")).ok()
    });
    match stats.filter(|stat| is_left(stat)).count() {
        0 => ok(name, "process 1 takes the ends of its children"),
        count => warn(
            name,
            format!(
                "{count} ended processes are left by process 1: libvirt waits for such ends before each start that \
                 probes QEMU"
            ),
            "run libvirt below an init that reaps (systemd, tini)",
        ),
    }
}

/// proc_pid_stat(5): `12 (a) b) Z 1 ...`: ended, and a child of process 1.
fn is_left(stat: &str) -> bool {
    let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    words.next() == Some("Z") && words.next() == Some("1")
}

/// Is there a place for the memory of domains that are paused?
fn swap() -> Check {
    match dormouse_platform::page_out::swap_bytes() {
        0 => warn(
            "swap",
            "there is none: the memory of paused domains stays in memory, unless it is in a file",
            "add swap as large as they are together, or give them <memoryBacking> with <source type='file'/> and \
             <access mode='shared'/>; only page_out needs it",
        ),
        bytes => {
            ok("swap", format!("{} for the memory of paused domains (page_out)", super::bytesize(bytes)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::CheckStatus;

    #[test]
    fn reads_libvirts_configuration() {
        let text =
            "# user = \"commented\"\nuser = \"+64055\"\n  save_image_format=\"zstd\"\nuserx = \"no\"\n";
        assert_eq!(value(text, "user"), Some("+64055"));
        assert_eq!(value(text, "group"), None);
        assert_eq!(format(text).status, CheckStatus::Warn);
        assert_eq!(format("save_image_format = \"raw\"").status, CheckStatus::Ok);
        assert_eq!(format("#save_image_format = \"lzop\"").status, CheckStatus::Ok);
    }

    #[test]
    fn who_may_open_a_device() {
        assert!(
            may_open(0o600, true, false) && may_open(0o660, false, true) && may_open(0o666, false, false)
        );
        assert!(!may_open(0o660, false, false) && !may_open(0o640, false, true));
    }

    #[test]
    fn a_probe_just_before_a_start_is_one_for_it() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert!(is_probe_for(start - Duration::from_secs(8), start));
        assert!(!is_probe_for(start - Duration::from_secs(600), start));
        assert!(!is_probe_for(start + Duration::from_secs(1), start));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(probes(folder.path(), folder.path()).status, CheckStatus::Warn);
        for file in ["a.xml", "web.pid"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(probes(folder.path(), folder.path()).status, CheckStatus::Warn);
        let old = SystemTime::now() - Duration::from_secs(3600);
        let cache = fs::File::options().write(true).open(folder.path().join("a.xml")).unwrap();
        cache.set_modified(old).unwrap();
        assert_eq!(probes(folder.path(), folder.path()).status, CheckStatus::Ok);
    }

    #[test]
    fn knows_what_init_has_left() {
        assert!(is_left("12 (a) b) Z 1 12 12"));
        assert!(
            !is_left("12 (a) S 1 12") && !is_left("12 (a) Z 7 12") && !is_left("") && !is_left("12 (Z 1")
        );
    }
}
