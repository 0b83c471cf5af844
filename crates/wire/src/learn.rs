//! Learning a machine's addresses from what it sends.

use core::net::IpAddr;

use dormouse_types::MacAddr;

use crate::{
    frame::Frame,
    ndisc::Neighbor,
    network::{Network, is_host},
};

/// The IP addresses that the machine at `mac` claims by `frame`; none if it did not send it.
///
/// - ARP: the sender's address, unless it is a probe (RFC 5227 §2.1).
/// - Neighbour discovery: an advertisement's target, and the target of a solicitation from `::`,
///   by which a host checks the address that it is about to use (RFC 4862 §5.4).
/// - IPv4 and IPv6: the source. A machine that routes for others sends packets with their
///   sources: name the addresses of such a machine in its file.
pub fn learned(frame: &Frame<'_>, mac: MacAddr) -> impl Iterator<Item = IpAddr> + use<> {
    let claims = if frame.src() == mac { claims(frame, mac) } else { [None, None] };
    claims.into_iter().flatten().filter(|address| is_host(*address))
}

fn claims(frame: &Frame<'_>, mac: MacAddr) -> [Option<IpAddr>; 2] {
    match frame.network() {
        Network::Arp(arp) => [Some(IpAddr::V4(arp.sender)).filter(|_| arp.sender_mac == mac), None],
        Network::Ipv4(ip) => [Some(IpAddr::V4(ip.src)), None],
        Network::Ipv6(ip) => {
            let source = Some(IpAddr::V6(ip.src));
            match Neighbor::parse(&ip) {
                Some(Neighbor::Advertisement { target, .. }) if target != ip.src => {
                    [source, Some(target.into())]
                }
                Some(Neighbor::Solicitation { target, .. }) if ip.src.is_unspecified() => {
                    [Some(target.into()), None]
                }
                _ => [source, None],
            }
        }
        Network::Other(_) => [None, None],
    }
}
