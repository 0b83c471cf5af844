//! What can be looked at without the daemon, so that `doctor` helps when it does not run.
//!
//! [`Host::look`] reads; [`checks`] judges, and is pure. A check that the daemon makes too is
//! the daemon's: it sees the host with its own rights.

use std::path::{Path, PathBuf};

use dormouse_api_types::{Check, CheckStatus, Report, VersionInfo};

use crate::client;

/// What was found on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// `/dev/kvm` is there.
    kvm: bool,
    /// The processor shows `vmx` or `svm`.
    virtualisation: bool,
    /// `/dev/net/tun` is there.
    tun: bool,
    /// The emulator.
    qemu: Option<PathBuf>,
    /// `bridge-nf-call-iptables`; `None` when bridge netfilter is not loaded.
    bridge_netfilter: Option<bool>,
}

impl Host {
    /// Looks.
    pub(crate) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self {
            kvm: Path::new("/dev/kvm").exists(),
            virtualisation: read("/proc/cpuinfo").is_some_and(|text| shows_virtualisation(&text)),
            tun: Path::new("/dev/net/tun").exists(),
            qemu: find_program(&format!("qemu-system-{}", std::env::consts::ARCH)),
            bridge_netfilter: read("/proc/sys/net/bridge/bridge-nf-call-iptables")
                .map(|text| text.trim() == "1"),
        }
    }
}

fn shows_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Judges the host.
pub(crate) fn checks(host: &Host) -> Vec<Check> {
    vec![kvm(host), qemu(host), tun(host), bridge_netfilter(host)]
}

fn check(name: &str, status: CheckStatus, found: impl Into<String>, fix: Option<&str>) -> Check {
    Check { name: name.into(), status, found: found.into(), fix: fix.map(Into::into) }
}

fn kvm(host: &Host) -> Check {
    match (host.kvm, host.virtualisation) {
        (true, true) => check("kvm", CheckStatus::Ok, "/dev/kvm, and the processor has vmx or svm", None),
        (true, false) => check(
            "kvm",
            CheckStatus::Warn,
            "/dev/kvm is there, but the processor shows neither vmx nor svm: guests are emulated, slowly",
            Some("allow nested virtualisation for this host, if it is a virtual machine"),
        ),
        (false, _) => check(
            "kvm",
            CheckStatus::Warn,
            "no /dev/kvm: guests are emulated, slowly",
            Some("modprobe kvm_intel or kvm_amd, and turn virtualisation on in the firmware"),
        ),
    }
}

fn qemu(host: &Host) -> Check {
    match &host.qemu {
        Some(path) => check("qemu", CheckStatus::Ok, path.display().to_string(), None),
        None => {
            let found = format!("no qemu-system-{} on the PATH", std::env::consts::ARCH);
            check(
                "qemu",
                CheckStatus::Fail,
                found,
                Some("apt install qemu-system-x86, or qemu-system-arm on ARM"),
            )
        }
    }
}

fn tun(host: &Host) -> Check {
    if host.tun {
        check("tun", CheckStatus::Ok, "/dev/net/tun", None)
    } else {
        check("tun", CheckStatus::Fail, "no /dev/net/tun: machines get no network", Some("modprobe tun"))
    }
}

fn bridge_netfilter(host: &Host) -> Check {
    match host.bridge_netfilter {
        Some(true) => check(
            "bridge-netfilter",
            CheckStatus::Warn,
            "bridged frames pass through iptables, whose rules may drop what is meant for machines",
            Some("sysctl net.bridge.bridge-nf-call-iptables=0, unless those rules are meant for machines"),
        ),
        Some(false) => {
            check("bridge-netfilter", CheckStatus::Ok, "bridged frames do not pass through iptables", None)
        }
        None => check("bridge-netfilter", CheckStatus::Ok, "not loaded", None),
    }
}

/// What the way to the daemon says of it.
pub(crate) fn daemon(answer: Result<VersionInfo, client::Error>) -> Check {
    match answer {
        Ok(info) if info.api.iter().any(|version| version == "v1") => {
            check("daemon", CheckStatus::Ok, format!("dormoused {} answers", info.version), None)
        }
        Ok(info) => {
            let found = format!("dormoused {} serves {}, not v1", info.version, info.api.join(", "));
            check(
                "daemon",
                CheckStatus::Fail,
                found,
                Some("let the versions of dormouse and dormoused be the same"),
            )
        }
        Err(error) => {
            let fix = error.fix();
            let found = format!("{:#}", anyhow::Error::from(error));
            check("daemon", CheckStatus::Fail, found, fix.as_deref())
        }
    }
}

/// The daemon's own report over what was seen from here.
pub(crate) fn merge(daemon: Check, report: Report, host: Vec<Check>) -> Report {
    let here = host.into_iter().filter(|ours| report.checks.iter().all(|theirs| theirs.name != ours.name));
    let here: Vec<_> = here.collect();
    Report { checks: std::iter::once(daemon).chain(report.checks).chain(here).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(host: &Host) -> Vec<CheckStatus> {
        checks(host).iter().map(|check| check.status).collect()
    }

    #[test]
    fn a_good_host_is_all_ok() {
        let host = Host {
            kvm: true,
            virtualisation: true,
            tun: true,
            qemu: Some("/usr/bin/qemu-system-x86_64".into()),
            bridge_netfilter: None,
        };
        assert_eq!(statuses(&host), [CheckStatus::Ok; 4]);
    }

    #[test]
    fn a_bare_host_says_what_to_do() {
        let host = Host { bridge_netfilter: Some(true), ..Host::default() };
        assert_eq!(
            statuses(&host),
            [CheckStatus::Warn, CheckStatus::Fail, CheckStatus::Fail, CheckStatus::Warn]
        );
        assert!(checks(&host).iter().all(|check| check.fix.is_some()));
    }

    #[test]
    fn virtualisation_is_a_flag_of_its_own() {
        assert!(shows_virtualisation("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!shows_virtualisation("flags\t\t: fpu vmx_like sse\nvmx flags : vnmi\n"));
    }

    #[test]
    fn the_daemon_has_the_last_word() {
        let theirs = Report { checks: vec![check("kvm", CheckStatus::Ok, "theirs", None)] };
        let merged = merge(check("daemon", CheckStatus::Ok, "", None), theirs, checks(&Host::default()));
        let names: Vec<_> = merged.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["daemon", "kvm", "qemu", "tun", "bridge-netfilter"]);
        assert_eq!(merged.checks[1].found, "theirs");
    }
}
