//! Which frames wake a sleeper.

use dormouse_types::WakeRule;

use crate::{
    frame::{Frame, ethertype},
    magic::is_magic,
    ndisc,
    network::{Network, protocol},
    respond::Identity,
};

/// Does `frame` ask for the sleeper `who`, by any of `rules`?
///
/// To be asked after the responders have passed on the frame: by `any-unicast`, a ping would wake.
/// A frame that bears the sleeper's own address as its source never wakes it.
#[must_use]
pub fn wake_match(rules: &[WakeRule], frame: &Frame<'_>, who: &Identity) -> bool {
    frame.src() != who.mac && rules.iter().any(|rule| rule_matches(rule, frame, who))
}

fn rule_matches(rule: &WakeRule, frame: &Frame<'_>, who: &Identity) -> bool {
    let to_us = frame.dst() == who.mac;
    match rule {
        WakeRule::AnyUnicast => to_us && !is_link_upkeep(frame),
        WakeRule::Magic => is_magic(frame, who.mac),
        WakeRule::Tcp(ports) => to_us && is_for_port(frame, protocol::TCP, ports),
        WakeRule::Udp(ports) => to_us && is_for_port(frame, protocol::UDP, ports),
    }
}

/// Does `frame` carry (the first fragment of) a packet of `protocol` for one of `ports`?
fn is_for_port(frame: &Frame<'_>, protocol: u8, ports: &[u16]) -> bool {
    destination_port(frame, protocol).is_some_and(|port| ports.contains(&port))
}

/// The destination port of a frame of `protocol`, over IPv4 or IPv6.
pub(crate) fn destination_port(frame: &Frame<'_>, protocol: u8) -> Option<u16> {
    let (carried, ports) = match frame.network() {
        Network::Ipv4(ip) => (ip.protocol, ip.ports()),
        Network::Ipv6(ip) => (ip.protocol, ip.ports()),
        Network::Arp(_) | Network::Other(_) => return None,
    };
    ports.filter(|_| carried == protocol).map(|(_, destination)| destination)
}

/// Is this what keeps a link going and asks nothing of the machine behind it?
fn is_link_upkeep(frame: &Frame<'_>) -> bool {
    match frame.network() {
        Network::Arp(_) => true,
        Network::Ipv4(_) => false,
        Network::Ipv6(ip) => ip.icmpv6_type().is_some_and(|kind| ndisc::MESSAGE_TYPES.contains(&kind)),
        Network::Other(ethertype) => is_link_local_protocol(ethertype),
    }
}

/// Protocols between the two ends of a link (IEEE 802 Numbers, IANA), and the numbers that are
/// free for experiments on a link.
const fn is_link_local_protocol(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ethertype::ARP
            | ethertype::EXPERIMENTAL_1
            | 0x88b6 // local experimental 2
            | 0x8808 // MAC control: pause
            | 0x8809 // slow protocols: LACP, OAM
            | 0x888e // port authentication, 802.1X
            | 0x88cc // LLDP
            | 0x88e5 // MACsec
            | 0x88f5 // MVRP
            | 0x88f6 // MMRP
            | 0x88f7 // precision time, IEEE 1588
            | 0x8902 // connectivity fault management
            | 0x9000 // configuration test, "loopback"
    )
}
