//! Whom a group frame concerns, told once for all sleepers of a network.

use core::net::IpAddr;

use crate::{
    frame::Frame,
    membership::kind,
    ndisc::Neighbor,
    network::{ArpOperation, IpPacket, Network, protocol},
};

/// The sleepers that a [`Proxy`](crate::Proxy) may have something to say for about a group frame.
///
/// It is about proxies alone: wake rules and ignore lists may name any group frame. Whoever keeps
/// thousands of sleepers by their addresses asks the one or two that a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Those that have one of two addresses.
    Owners {
        /// Who has this address is asked for, by ARP request or neighbour solicitation. To all
        /// others the frame is of no use.
        asked: Option<IpAddr>,
        /// Another station says, or by its sender's address implies, that it has this one.
        claimed: Option<IpAddr>,
    },
    /// Any of them: a query for groups or names, or a message of DHCP.
    Everyone,
    /// None: no proxy answers or consumes it.
    Nobody,
}

/// UDP destination ports of group frames that proxies look at: NetBIOS names, DHCP clients, mDNS, LLMNR.
const PORTS: [u16; 4] = [137, 68, 5353, 5355];

impl Audience {
    /// Whom `frame` concerns, if it is sent to a group; of other frames this says nothing.
    #[must_use]
    pub fn of(frame: &Frame<'_>) -> Self {
        match frame.network() {
            Network::Arp(arp) => {
                let asks = arp.operation == ArpOperation::Request && !arp.is_announcement();
                let claimed = (!arp.sender.is_unspecified()).then_some(arp.sender.into());
                Self::Owners { asked: asks.then_some(arp.target.into()), claimed }
            }
            Network::Ipv4(ip) if ip.protocol == protocol::IGMP => {
                Self::everyone_if(ip.payload.first() == Some(&kind::IGMP_QUERY))
            }
            Network::Ipv4(ip) => Self::everyone_if(is_to_known_port(&ip)),
            Network::Ipv6(ip) => match Neighbor::parse(&ip) {
                Some(Neighbor::Solicitation { target, .. }) => {
                    Self::Owners { asked: Some(target.into()), claimed: None }
                }
                Some(Neighbor::Advertisement { target, .. }) => {
                    Self::Owners { asked: None, claimed: Some(target.into()) }
                }
                None => Self::everyone_if(ip.icmpv6_type() == Some(kind::MLD_QUERY) || is_to_known_port(&ip)),
            },
            Network::Other(_) => Self::Nobody,
        }
    }

    const fn everyone_if(concerned: bool) -> Self {
        if concerned { Self::Everyone } else { Self::Nobody }
    }
}

fn is_to_known_port<A>(ip: &IpPacket<'_, A>) -> bool {
    ip.protocol == protocol::UDP && ip.ports().is_some_and(|(_, port)| PORTS.contains(&port))
}
