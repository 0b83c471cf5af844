//! Taps, bridges, and the handover.

use std::fs;

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
            "bridged frames pass the host's iptables: they may be dropped there, on their way to a \
             machine or to its stand-in",
            "sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, unless you filter there",
        ),
    }
}

/// Is a bridge there that machines are in?
pub(super) fn bridge(bridge: &str) -> Check {
    let name = format!("bridge {bridge}");
    match if_nametoindex(bridge) {
        Ok(_) => ok(&name, "is there"),
        Err(_) => {
            let fix = format!("ip link add {bridge} type bridge; ip link set {bridge} up");
            fail(&name, "is missing: machines in it cannot start, and are not stood in for", fix)
        }
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
        assert_eq!(bridge("lo").status, CheckStatus::Ok);
    }
}
