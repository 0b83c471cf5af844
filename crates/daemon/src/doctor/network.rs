//! Taps, bridges, and the handover.

use std::{fs, path::Path, process::Command};

use dormouse_api_types::Check;
use dormouse_surrogate::{Capabilities, FollowKind, HandoverKind};
use nix::net::if_::if_nametoindex;

use super::{fail, ok, warn};

/// Can taps be made?
pub(super) fn tun() -> Check {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => ok("tun", "/dev/net/tun is usable"),
        Err(error) => fail("tun", format!("/dev/net/tun: {error}"), "modprobe tun"),
    }
}

/// How are woken machines handed over?
pub(super) fn handover(surrogate: &Capabilities) -> Check {
    match (surrogate.handover, &surrogate.obstacle) {
        (HandoverKind::Ebpf, _) => ok("handover", "by eBPF: no frame is lost or overtaken at any rate"),
        (HandoverKind::Plain, obstacle) => warn(
            "handover",
            format!(
                "plain, since {}: above some 20,000 frames a second a few may be overtaken by others",
                obstacle.as_deref().unwrap_or("the configuration says so")
            ),
            "give dormoused CAP_BPF and CAP_NET_ADMIN on a kernel with BPF, and set network.handover to auto",
        ),
    }
}

/// How are the connections of running guests followed?
pub(super) fn flows(surrogate: &Capabilities) -> Check {
    match (surrogate.flows, &surrogate.flows_obstacle) {
        (FollowKind::Ebpf, _) => ok("connections", "followed by eBPF: their keepalive probes are answered"),
        (FollowKind::Packets, obstacle) => warn(
            "connections",
            format!(
                "followed by reading headers, since {}: it takes processor time for each TCP frame \
                 that a running machine sends",
                obstacle.as_deref().unwrap_or("the configuration says so")
            ),
            "give dormoused CAP_BPF and CAP_NET_ADMIN on a kernel with BPF, and set network.handover to auto",
        ),
    }
}

/// Does the host's firewall see bridged frames?
pub(super) fn bridge_netfilter() -> Check {
    let name = "bridge-netfilter";
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    match fs::read_to_string(path).as_deref().map(str::trim) {
        Ok("0") | Err(_) => ok(name, "bridged frames do not pass the host's firewall"),
        Ok(_) => warn(
            name,
            "bridged frames pass the host's iptables: rules by address hold for a sleeper as for a guest, those by \
             the tap's name do not",
            "sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, unless you filter there",
        ),
    }
}

/// Is a bridge there that machines are in, and can they be stood in for on it?
pub(super) fn bridge(bridge: &str) -> Check {
    let name = format!("bridge {bridge}");
    if if_nametoindex(bridge).is_err() {
        let fix = format!("ip link add {bridge} type bridge; ip link set {bridge} up");
        return fail(&name, "is missing: machines in it cannot start, and are not stood in for", fix);
    }
    if Path::new("/sys/class/net").join(bridge).join("bridge").exists() {
        return ok(&name, "is there");
    }
    match ask("ovs-vsctl", &["br-exists", bridge]) {
        Ok(true) => static_entries(&name, bridge),
        Ok(false) => {
            let fix = format!("name another in the machine files, or make {bridge} one");
            fail(&name, "is neither a Linux bridge nor one of Open vSwitch's", fix)
        }
        Err(why) => {
            let found = format!("is no Linux bridge, and Open vSwitch cannot be asked about it: {why}");
            fail(
                &name,
                found,
                "install Open vSwitch's programs and start ovs-vswitchd, if the bridge is one of its",
            )
        }
    }
}

/// Open vSwitch can hold an address at a port from version 2.16 on.
fn static_entries(name: &str, bridge: &str) -> Check {
    match ask("ovs-appctl", &["fdb/show", bridge]).and_then(|_| listed_commands()) {
        Ok(commands) if commands.contains("fdb/add") => ok(name, "is there, of Open vSwitch"),
        Ok(_) => fail(
            name,
            "is of an Open vSwitch that cannot hold addresses at a port (fdb/add)",
            "use Open vSwitch 2.16 or later",
        ),
        Err(why) => fail(name, format!("ovs-vswitchd does not answer: {why}"), "start ovs-vswitchd"),
    }
}

fn listed_commands() -> Result<String, String> {
    let out = Command::new("ovs-appctl").args(["--timeout=5", "list-commands"]).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).map_err(|error| error.to_string())
}

/// Runs one of Open vSwitch's programs; false if it ends as ovs-vsctl(8) does to say no.
fn ask(program: &str, arguments: &[&str]) -> Result<bool, String> {
    let out = Command::new(program).arg("--timeout=5").args(arguments).output();
    let out = out.map_err(|error| format!("{program}: {error}"))?;
    match out.status.code() {
        Some(0) => Ok(true),
        Some(2) if program == "ovs-vsctl" => Ok(false),
        _ => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::CheckStatus;

    #[test]
    fn says_why_not_by_ebpf() {
        let capabilities = Capabilities {
            handover: HandoverKind::Plain,
            obstacle: Some("the kernel refuses BPF programs".into()),
            flows: FollowKind::Packets,
            flows_obstacle: Some("the kernel refuses this one".into()),
        };
        for (check, why) in [
            (handover(&capabilities), "the kernel refuses BPF programs"),
            (flows(&capabilities), "the kernel refuses this one"),
        ] {
            assert_eq!(check.status, CheckStatus::Warn);
            assert!(check.found.contains(why), "{}", check.found);
        }
    }

    #[test]
    fn a_missing_bridge_fails() {
        assert_eq!(bridge("nosuchbridge0").status, CheckStatus::Fail);
        let check = bridge("lo");
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.found.contains("no Linux bridge") || check.found.contains("neither"), "{check:?}");
    }
}
