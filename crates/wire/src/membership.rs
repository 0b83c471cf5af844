//! Membership of multicast groups: IGMPv1, v2 and v3 (RFC 1112, RFC 2236, RFC 3376), MLDv1 and v2
//! (RFC 2710, RFC 3810).

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use smoltcp::wire::{Icmpv6Packet, IgmpPacket};

use crate::{
    frame::{Frame, u16_at},
    network::{Fragment, IpPacket, Network, protocol},
};

/// The types of messages (RFC 3376 §4 and §7; RFC 2710 §3.1, RFC 3810 §5.2).
pub(crate) mod kind {
    pub(crate) const IGMP_QUERY: u8 = 0x11;
    pub(crate) const IGMP_REPORT_V1: u8 = 0x12;
    pub(crate) const IGMP_REPORT_V2: u8 = 0x16;
    pub(crate) const IGMP_LEAVE: u8 = 0x17;
    pub(crate) const IGMP_REPORT_V3: u8 = 0x22;
    pub(crate) const MLD_QUERY: u8 = 130;
    pub(crate) const MLD_REPORT: u8 = 131;
    pub(crate) const MLD_DONE: u8 = 132;
    pub(crate) const MLD_REPORT_V2: u8 = 143;
}

/// Record types that say that there are members (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
const MODE_IS_INCLUDE: u8 = 1;
pub(crate) const MODE_IS_EXCLUDE: u8 = 2;
const CHANGE_TO_INCLUDE: u8 = 3;
const CHANGE_TO_EXCLUDE: u8 = 4;
const ALLOW_NEW_SOURCES: u8 = 5;

/// A message about groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership<'a> {
    Query(Query),
    /// There is a member of the group.
    Report(IpAddr),
    /// There may be none left.
    Leave(IpAddr),
    /// Several of these at once.
    Records(Records<'a>),
}

/// Who is a member?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) version: Version,
    /// Of this group; `None`: of any.
    pub(crate) group: Option<IpAddr>,
    /// Within this time.
    pub(crate) within: Duration,
}

/// The version of a query, which is that of the reports to it (RFC 3376 §7.2.1, RFC 3810 §8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Igmp1,
    Igmp2,
    Igmp3,
    Mld1,
    Mld2,
}

impl<'a> Membership<'a> {
    /// Reads a message and checks it, but for its source, which each use wants otherwise.
    ///
    /// Nothing is taken from further away than the link (a hop limit of 1; RFC 3376 §4 and RFC
    /// 3810 §5 have it sent so, and MLD is refused otherwise).
    pub(crate) fn parse(frame: &Frame<'a>) -> Option<Self> {
        match frame.network() {
            Network::Ipv4(ip) => Self::igmp(&ip),
            Network::Ipv6(ip) => Self::mld(&ip),
            Network::Arp(_) | Network::Other(_) => None,
        }
    }

    fn igmp(ip: &IpPacket<'a, Ipv4Addr>) -> Option<Self> {
        let whole = ip.protocol == protocol::IGMP && ip.fragment == Fragment::Whole && ip.complete;
        if !whole || ip.hop_limit != 1 {
            return None;
        }
        let message = IgmpPacket::new_checked(ip.payload).ok()?;
        if !message.verify_checksum() {
            return None;
        }
        let group = message.group_addr();
        let of_group = || group.is_multicast().then_some(IpAddr::V4(group));
        match u8::from(message.msg_type()) {
            kind::IGMP_QUERY => {
                let code = message.max_resp_code();
                // RFC 3376 §7.1; §4.1.1: tenths of a second.
                let (version, tenths) = match (ip.payload.len(), code) {
                    (8, 0) => (Version::Igmp1, 100),
                    (8, code) => (Version::Igmp2, u64::from(code)),
                    (9..=11, _) => return None,
                    (_, code) => (Version::Igmp3, floating(code.into(), 7)),
                };
                let group = if group.is_unspecified() { None } else { Some(of_group()?) };
                Some(Self::Query(Query { version, group, within: Duration::from_millis(100 * tenths) }))
            }
            kind::IGMP_REPORT_V1 | kind::IGMP_REPORT_V2 => of_group().map(Self::Report),
            kind::IGMP_LEAVE => of_group().map(Self::Leave),
            kind::IGMP_REPORT_V3 => Records::new::<4>(ip.payload).map(Self::Records),
            _ => None,
        }
    }

    fn mld(ip: &IpPacket<'a, Ipv6Addr>) -> Option<Self> {
        let whole = ip.protocol == protocol::ICMPV6 && ip.fragment == Fragment::Whole && ip.complete;
        if !whole || ip.hop_limit != 1 {
            return None;
        }
        let kind = ip.icmpv6_type()?;
        if !matches!(kind, kind::MLD_QUERY..=kind::MLD_DONE | kind::MLD_REPORT_V2) {
            return None;
        }
        // smoltcp's own check refuses queries of MLDv1, which are shorter.
        let message = Icmpv6Packet::new_unchecked(ip.payload);
        if ip.payload.len() < 8 || message.msg_code() != 0 || !message.verify_checksum(&ip.src, &ip.dst) {
            return None;
        }
        let address = || ip.payload.get(8..)?.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets));
        let of_group = || address().filter(Ipv6Addr::is_multicast).map(IpAddr::V6);
        match kind {
            kind::MLD_QUERY => {
                let code = u16_at(ip.payload, 4)?;
                // RFC 3810 §8.1; §5.1.3: thousandths of a second.
                let (version, millis) = match ip.payload.len() {
                    24 => (Version::Mld1, u64::from(code)),
                    28.. => (Version::Mld2, floating(code, 15)),
                    _ => return None,
                };
                let group = if address()?.is_unspecified() { None } else { Some(of_group()?) };
                Some(Self::Query(Query { version, group, within: Duration::from_millis(millis) }))
            }
            kind::MLD_REPORT => of_group().map(Self::Report),
            kind::MLD_DONE => of_group().map(Self::Leave),
            kind::MLD_REPORT_V2 => Records::new::<16>(ip.payload).map(Self::Records),
            _ => None,
        }
    }
}

/// A code of `bits` and one more: itself, or with that bit set three bits of exponent and a
/// mantissa (RFC 3376 §4.1.1, RFC 3810 §5.1.3).
fn floating(code: u16, bits: u32) -> u64 {
    let code = u64::from(code);
    if code < 1 << bits {
        return code;
    }
    let exponent = (code >> (bits - 3)) & 7;
    let mantissa = code & ((1 << (bits - 3)) - 1);
    (mantissa | 1 << (bits - 3)) << (exponent + 3)
}

/// The group records of an IGMPv3 or MLDv2 report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Records<'a> {
    /// How many are said to be left.
    left: u16,
    bytes: &'a [u8],
    /// Octets of an address.
    address: usize,
}

/// What a record says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) group: IpAddr,
    /// There is a member; else there is none any more. `None`: only some sources are left out.
    pub(crate) joined: Option<bool>,
}

impl<'a> Records<'a> {
    /// Those of a report with addresses of `A` octets.
    fn new<const A: usize>(report: &'a [u8]) -> Option<Self> {
        Some(Self { left: u16_at(report, 6)?, bytes: report.get(8..)?, address: A })
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    /// The next one, up to the first that is cut or of no group.
    fn next(&mut self) -> Option<Record> {
        self.left = self.left.checked_sub(1)?;
        let [kind, auxiliary, ..] = *self.bytes else { return None };
        let sources = u16_at(self.bytes, 2)?;
        let group = match self.address {
            4 => IpAddr::from(*self.bytes.get(4..)?.first_chunk::<4>()?),
            _ => IpAddr::from(*self.bytes.get(4..)?.first_chunk::<16>()?),
        };
        let len = 4 + self.address * (1 + usize::from(sources)) + 4 * usize::from(auxiliary);
        self.bytes = self.bytes.get(len..)?;
        let joined = match (kind, sources) {
            (MODE_IS_EXCLUDE | CHANGE_TO_EXCLUDE, _) | (ALLOW_NEW_SOURCES, 1..) => Some(true),
            (MODE_IS_INCLUDE | CHANGE_TO_INCLUDE, sources) => Some(sources > 0),
            _ => None,
        };
        Some(Record { group, joined }).filter(|_| group.is_multicast())
    }
}
