//! What makes the libvirt of this host slow, for its starts and saves are on the way of every wake; and what it does
//! to sleepers behind our back.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use dormouse_api_types::Check;
use dormouse_machine::spec::{MachineSpec, PlatformSpec};
use nix::unistd::{Group, User};

use super::{ok, warn};

const CONFIG: &str = "/etc/libvirt/qemu.conf";
const CACHE: &str = "/var/cache/libvirt/qemu/capabilities";
const RUN: &str = "/run/libvirt/qemu";
/// Whom the packages of distributions run QEMU as, in this order.
const USERS: [&str; 3] = ["libvirt-qemu", "qemu", "root"];
/// A probe of QEMU that ended so long before a domain's process began was made for it.
const PROBE: Duration = Duration::from_secs(15);
/// The service that ends domains when the host shuts down; its script, which has what its packager chose, and its
/// settings, each where distributions have it.
const GUESTS: &str = "libvirt-guests.service";
const GUESTS_SCRIPT: [&str; 2] = ["/usr/lib/libvirt/libvirt-guests.sh", "/usr/libexec/libvirt-guests.sh"];
const GUESTS_CONFIG: [&str; 2] = ["/etc/default/libvirt-guests", "/etc/sysconfig/libvirt-guests"];
const UNITS: &str = "/etc/systemd/system";

/// What the machines that libvirt runs ask of this host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Domains {
    /// The memory of one that is paused is to go to the disk.
    page_out: bool,
    /// One falls asleep so that its process stays.
    stays: bool,
}

impl Domains {
    pub(crate) fn of<'a>(specs: impl Iterator<Item = &'a MachineSpec>) -> Self {
        specs.fold(Self::default(), |all, spec| match &spec.platform {
            PlatformSpec::Libvirt(domain) => Self {
                page_out: all.page_out || domain.page_out,
                stays: all.stays || spec.sleep.depth.keeps_process(),
            },
            PlatformSpec::Qemu(_) => all,
        })
    }
}

/// Looks at the host's libvirt; nothing if there is none.
pub(super) fn checks(domains: Domains) -> Vec<Check> {
    if !Path::new(CONFIG).exists() && !Path::new(RUN).exists() {
        return Vec::new();
    }
    let config = fs::read_to_string(CONFIG).unwrap_or_default();
    let mut checks = vec![kvm(&config), probes(Path::new(CACHE), Path::new(RUN)), format(&config), reaping()];
    if is_enabled(Path::new(UNITS), GUESTS) {
        let first = |paths: [&str; 2]| paths.iter().find_map(|path| fs::read_to_string(path).ok());
        let [script, config] = [GUESTS_SCRIPT, GUESTS_CONFIG].map(|paths| first(paths).unwrap_or_default());
        checks.push(guests(&script, &config, domains.stays));
    }
    if domains.page_out {
        checks.push(swap());
    }
    checks
}

/// The value of a key of libvirt's own format, `key = "value"`: the last one.
fn value<'a>(config: &'a str, key: &str) -> Option<&'a str> {
    config.lines().rev().find_map(|line| assigned(line, key))
}

/// What a line makes the value of a key.
fn assigned<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let value = line.trim().strip_prefix(key)?.trim().strip_prefix('=')?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// Is a unit wanted by another one?
fn is_enabled(units: &Path, unit: &str) -> bool {
    let folders = fs::read_dir(units).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut wants = folders.filter(|path| path.extension().is_some_and(|found| found == "wants"));
    wants.any(|folder| folder.join(unit).symlink_metadata().is_ok())
}

/// What becomes of sleepers that are processes when the host shuts down? `ON_SHUTDOWN` of libvirt-guests(8): as it is
/// set, or as the script has it, for Debian's asks to shut down and others save.
fn guests(script: &str, config: &str, stays: bool) -> Check {
    let name = "libvirt-guests";
    let key = "ON_SHUTDOWN";
    let usual = || script.lines().find_map(|line| assigned(line, key));
    if value(config, key).or_else(usual) != Some("shutdown") {
        return ok(name, format!("{GUESTS} saves what runs when the host shuts down, and who sleeps paused"));
    }
    let found = format!("{GUESTS} asks domains to shut down when the host does");
    if !stays {
        return ok(name, format!("{found}; who sleeps saved or off is nothing to it"));
    }
    warn(
        name,
        format!(
            "{found}: who sleeps paused or pmsuspended cannot heed that, is waited for in vain, and cut off"
        ),
        "set ON_SHUTDOWN=suspend in its settings, or let such machines be saved soon (sleep.deeper)",
    )
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
    fn what_libvirt_guests_does_to_sleepers() {
        let debian =
            "ON_BOOT=\"ignore\"\nON_SHUTDOWN=\"shutdown\"\ncase x in\n  y)\n    ON_SHUTDOWN=\"suspend\"\n";
        let upstream =
            debian.replacen("shutdown", "suspend", 1).replace("    ON_SHUTDOWN", "    # ON_SHUTDOWN");
        for (script, config, stays, status) in [
            ("", "", true, CheckStatus::Ok),
            (&*upstream, "", true, CheckStatus::Ok),
            (debian, "#ON_SHUTDOWN=suspend\n", true, CheckStatus::Warn),
            (debian, "ON_SHUTDOWN=suspend\n", true, CheckStatus::Ok),
            (&*upstream, "ON_BOOT=ignore\nON_SHUTDOWN='shutdown'\n", true, CheckStatus::Warn),
            (debian, "", false, CheckStatus::Ok),
        ] {
            assert_eq!(guests(script, config, stays).status, status, "{script} {config}");
        }
        let units = tempfile::tempdir().unwrap();
        assert!(!is_enabled(units.path(), GUESTS));
        let wants = units.path().join("multi-user.target.wants");
        fs::create_dir(&wants).unwrap();
        assert!(!is_enabled(units.path(), GUESTS));
        std::os::unix::fs::symlink("/nowhere", wants.join(GUESTS)).unwrap();
        assert!(is_enabled(units.path(), GUESTS));
    }

    #[test]
    fn what_machines_ask_of_the_host() {
        let spec = |platform: &str, sleep: &str| {
            let text = format!("name = \"web\"\n{platform}\n[sleep]\n{sleep}\n");
            MachineSpec::from_toml(&text, "/".as_ref()).unwrap()
        };
        let domain = "[libvirt]\ndomain = \"web\"";
        let of = |specs: &[MachineSpec]| {
            let Domains { page_out, stays } = Domains::of(specs.iter());
            (page_out, stays)
        };
        let qemu = "[qemu]\nmemory = \"64MiB\"\nkernel = \"/proc/version\"";
        assert_eq!(of(&[spec(domain, ""), spec(qemu, "depth = \"paused\"")]), (false, false));
        let paged = spec(&format!("{domain}\npage_out = true"), "depth = \"paused\"");
        assert_eq!(of(&[paged, spec(domain, "")]), (true, true));
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
