//! Neighbour discovery messages (RFC 4861), checked as the RFC asks for.

use core::net::Ipv6Addr;

use dormouse_types::MacAddr;
use smoltcp::wire::{Icmpv6Packet, NdiscRepr, RawHardwareAddress};

use crate::network::{Fragment, IpPacket, protocol};

/// ICMPv6 types 133 to 137: router and neighbour solicitation and advertisement, and redirect.
pub(crate) const MESSAGE_TYPES: core::ops::RangeInclusive<u8> = 133..=137;

/// A valid neighbour discovery message about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbor {
    /// Who has `target`?
    Solicitation {
        target: Ipv6Addr,
        /// The source link-layer address option.
        source_mac: Option<MacAddr>,
    },
    /// The sender has `target`.
    Advertisement {
        target: Ipv6Addr,
        /// The target link-layer address option.
        target_mac: Option<MacAddr>,
    },
}

impl Neighbor {
    /// Reads a message and checks it (RFC 4861 §7.1), but for its checksum, which may be partial.
    pub(crate) fn parse(ip: &IpPacket<'_, Ipv6Addr>) -> Option<Self> {
        // A hop limit of 255 says that no router sent it on; fragments are refused by RFC 6980 §5.
        let valid_packet = ip.hop_limit == 255 && ip.fragment == Fragment::Whole && ip.complete;
        if !valid_packet || ip.protocol != protocol::ICMPV6 {
            return None;
        }
        let message = Icmpv6Packet::new_checked(ip.payload).ok()?;
        if message.msg_code() != 0 || !message.msg_type().is_ndisc() {
            return None;
        }
        let neighbor = match NdiscRepr::parse(&message).ok()? {
            NdiscRepr::NeighborSolicit { target_addr: target, lladdr } => {
                let source_mac = lladdr.and_then(mac_of);
                let duplicate_check = ip.src.is_unspecified();
                if duplicate_check && (source_mac.is_some() || !is_solicited_node(ip.dst)) {
                    return None;
                }
                Self::Solicitation { target, source_mac }
            }
            NdiscRepr::NeighborAdvert { target_addr: target, lladdr, .. } => {
                Self::Advertisement { target, target_mac: lladdr.and_then(mac_of) }
            }
            _ => return None,
        };
        Some(neighbor).filter(|neighbor| !neighbor.target().is_multicast())
    }

    const fn target(&self) -> Ipv6Addr {
        match self {
            Self::Solicitation { target, .. } | Self::Advertisement { target, .. } => *target,
        }
    }
}

fn mac_of(option: RawHardwareAddress) -> Option<MacAddr> {
    MacAddr::from_slice(option.as_bytes())
}

/// Is this a solicited-node multicast address, `ff02::1:ff00:0/104` (RFC 4291 §2.7.1)?
const fn is_solicited_node(address: Ipv6Addr) -> bool {
    matches!(address.octets(), [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, ..])
}
