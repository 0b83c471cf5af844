//! Which multicast groups a sleeper is a member of (IGMP, MLD).

use alloc::vec::Vec;
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use dormouse_types::MacAddr;
use smoltcp::wire::{Icmpv6Packet, IgmpPacket};

use super::{Context, Identity, Responder, Response, build};
use crate::{
    digest,
    frame::Frame,
    membership::{MODE_IS_EXCLUDE, Membership, Query, Version, kind},
    network::{Network, protocol},
    persona::{Persona, is_reported},
};

/// Answers membership queries of IGMPv1, v2 and v3 with reports of their version (RFC 2236 §3,
/// RFC 3376 §5.2), for the IPv4 groups that the machine had joined.
///
/// - The reports are given within the query's time, spread by a digest of the sleeper's address, so
///   that many sleepers do not answer at once. That others report the same group holds nothing
///   back: switches that listen want to hear each member (RFC 4541 §2.1.1).
/// - A query for a group of which it is no member is consumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct IgmpMember;

/// The same for IPv6: MLDv1 and v2 (RFC 2710 §4, RFC 3810 §6.2). The solicited-node groups of its
/// addresses are joined without being learned (RFC 4291 §2.8).
#[derive(Clone, Copy, Debug, Default)]
pub struct MldMember;

impl Responder for IgmpMember {
    fn name(&self) -> &'static str {
        "igmp"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let Some(query) = query(frame, context.who) else { return Response::Pass };
        if matches!(query.version, Version::Mld1 | Version::Mld2) {
            return Response::Pass;
        }
        let groups: Vec<_> = v4_groups(context.persona).filter(|group| query.is_about(*group)).collect();
        let who = context.who;
        if groups.is_empty() {
            Response::Consume(NO_MEMBER)
        } else if query.version == Version::Igmp3 {
            let report = igmp_v3(frame, who, &groups);
            Response::Later(Vec::from([(delay(who.mac, query.group, query.within), report)]))
        } else {
            let kind =
                if query.version == Version::Igmp1 { kind::IGMP_REPORT_V1 } else { kind::IGMP_REPORT_V2 };
            let report = |group: Ipv4Addr| {
                let delay = delay(who.mac, Some(group.into()), query.within);
                (delay, igmp(frame, who, group, kind, &group.octets()))
            };
            Response::Later(groups.into_iter().map(report).collect())
        }
    }
}

impl Responder for MldMember {
    fn name(&self) -> &'static str {
        "mld"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let Some(query) = query(frame, context.who) else { return Response::Pass };
        if !matches!(query.version, Version::Mld1 | Version::Mld2) || !is_from_link(frame) {
            return Response::Pass;
        }
        let who = context.who;
        let mut groups: Vec<_> =
            v6_groups(context.persona, who).filter(|group| query.is_about(*group)).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            Response::Consume(NO_MEMBER)
        } else if query.version == Version::Mld2 {
            let delay = delay(who.mac, query.group, query.within);
            let reports = groups.chunks(RECORDS).map(|groups| (delay, mld_v2(frame, who, groups)));
            Response::Later(reports.collect())
        } else {
            let report = |group: Ipv6Addr| {
                let delay = delay(who.mac, Some(group.into()), query.within);
                (delay, mld(frame, who, group, kind::MLD_REPORT, &[&[0; 4], &group.octets()[..]].concat()))
            };
            Response::Later(groups.into_iter().map(report).collect())
        }
    }
}

const NO_MEMBER: &str = "a query for groups that it is no member of";
/// The most records in an MLDv2 report: 1336 octets of IPv6.
const RECORDS: usize = 64;
/// Where reports of the last versions go (RFC 3376 §4.2.14, RFC 3810 §5.2.14).
const ALL_IGMP_V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_MLD_V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// The router alert option of IPv4 (RFC 2113 §2.1), and that of IPv6, padded (RFC 2711 §2.1).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
const ROUTER_ALERT_6: [u8; 6] = [5, 2, 0, 0, 1, 0];
/// Network control (RFC 3376 §4).
const TRAFFIC_CLASS: u8 = 0xc0;

/// A query that the sleeper would take.
fn query(frame: &Frame<'_>, who: &Identity) -> Option<Query> {
    let reaches = frame.is_group() || frame.dst() == who.mac;
    match Membership::parse(frame)? {
        Membership::Query(query) if reaches && who.is_foreign(frame.src()) => Some(query),
        _ => None,
    }
}

/// Does it come from a link-local address, as queries of MLD must (RFC 3810 §6.2)?
fn is_from_link(frame: &Frame<'_>) -> bool {
    matches!(frame.network(), Network::Ipv6(ip) if ip.src.is_unicast_link_local())
}

impl Query {
    fn is_about(&self, group: impl Into<IpAddr>) -> bool {
        let group = group.into();
        self.group.is_none_or(|asked| asked == group)
    }
}

fn v4_groups(persona: &Persona) -> impl Iterator<Item = Ipv4Addr> {
    persona.groups.iter().filter(|group| is_reported(**group)).filter_map(|group| match group {
        IpAddr::V4(group) => Some(*group),
        IpAddr::V6(_) => None,
    })
}

fn v6_groups(persona: &Persona, who: &Identity) -> impl Iterator<Item = Ipv6Addr> {
    let solicited_node = who.addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(solicited_node(*address)),
        IpAddr::V4(_) => None,
    });
    let joined = persona.groups.iter().filter(|group| is_reported(**group)).filter_map(|group| match group {
        IpAddr::V6(group) => Some(*group),
        IpAddr::V4(_) => None,
    });
    joined.chain(solicited_node)
}

/// The group to which solicitations of `address` go (RFC 4291 §2.7.1).
const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// A part of `within` that is always the same for a machine and a group, and as good as random
/// among machines.
fn delay(mac: MacAddr, group: Option<IpAddr>, within: Duration) -> Duration {
    let mut key = Vec::from(mac.0);
    match group {
        Some(IpAddr::V4(group)) => key.extend(group.octets()),
        Some(IpAddr::V6(group)) => key.extend(group.octets()),
        None => {}
    }
    // FNV leaves neighbours together in its upper bits; this multiplication parts them (Knuth, TAOCP
    // 3, §6.4: the golden ratio).
    let part = u128::from(digest(&key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    Duration::from_nanos(u64::try_from((within.as_nanos() * part) >> 32).unwrap_or(u64::MAX))
}

fn igmp_v3(frame: &Frame<'_>, who: &Identity, groups: &[Ipv4Addr]) -> Vec<u8> {
    let mut rest = records_header(groups.len());
    for group in groups {
        rest.extend([MODE_IS_EXCLUDE, 0, 0, 0]);
        rest.extend(group.octets());
    }
    igmp(frame, who, ALL_IGMP_V3_ROUTERS, kind::IGMP_REPORT_V3, &rest)
}

/// A message of IGMP whose octets behind the checksum are `rest`.
fn igmp(frame: &Frame<'_>, who: &Identity, dst: Ipv4Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let own = who.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let header = build::Header {
        // RFC 3376 §4.2.13: a report of a machine without address is valid.
        src: own.unwrap_or(Ipv4Addr::UNSPECIFIED),
        dst,
        hop_limit: 1,
        traffic_class: TRAFFIC_CLASS,
        protocol: protocol::IGMP,
    };
    let [_, b, c, d] = dst.octets();
    // RFC 1112 §6.4.
    let group_mac = MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
    build::ipv4(frame, (who.mac, group_mac), &header, &ROUTER_ALERT, 4 + rest.len(), |bytes| {
        if let Some(place) = bytes.get_mut(4..) {
            place.copy_from_slice(rest);
        }
        let mut message = IgmpPacket::new_unchecked(bytes);
        message.set_msg_type(kind.into());
        message.fill_checksum();
    })
}

fn mld_v2(frame: &Frame<'_>, who: &Identity, groups: &[Ipv6Addr]) -> Vec<u8> {
    let mut rest = records_header(groups.len());
    for group in groups {
        rest.extend([MODE_IS_EXCLUDE, 0, 0, 0]);
        rest.extend(group.octets());
    }
    mld(frame, who, ALL_MLD_V2_ROUTERS, kind::MLD_REPORT_V2, &rest)
}

/// A message of MLD whose octets behind the checksum are `rest`.
fn mld(frame: &Frame<'_>, who: &Identity, dst: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let link_local = who.addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        _ => None,
    });
    let header = build::Header {
        // RFC 3590 §4: without one, switches at least take note.
        src: link_local.unwrap_or(Ipv6Addr::UNSPECIFIED),
        dst,
        hop_limit: 1,
        traffic_class: 0,
        protocol: protocol::ICMPV6,
    };
    let [.., a, b, c, d] = dst.octets();
    // RFC 2464 §7.
    let group_mac = MacAddr([0x33, 0x33, a, b, c, d]);
    build::ipv6(frame, (who.mac, group_mac), &header, &ROUTER_ALERT_6, 4 + rest.len(), |bytes| {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Some(place) = bytes.get_mut(4..) {
            place.copy_from_slice(rest);
        }
        Icmpv6Packet::new_unchecked(bytes).fill_checksum(&header.src, &header.dst);
    })
}

/// What stands between the checksum and the records of a report: how many there are.
fn records_header(records: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(records).unwrap_or(u16::MAX).to_be_bytes();
    Vec::from([0, 0, high, low])
}
