//! Whom a group frame concerns, told once for all sleepers of a network.

use alloc::{collections::BTreeSet, vec::Vec};
use core::net::IpAddr;

use crate::{
    digest,
    dns::{Message, flag},
    frame::{Frame, u16_at},
    membership::kind,
    ndisc::Neighbor,
    network::{ArpOperation, IpPacket, Network, protocol},
    persona::{
        Persona, llmnr, mdns,
        netbios::{self, ANYBODY, operation},
    },
    respond::llmnr::names_of,
    udp::Datagram,
};

/// The sleepers that a [`Proxy`](crate::Proxy) may have something to say for about a group frame.
///
/// It is about proxies alone: wake rules and ignore lists may name any group frame. Whoever keeps
/// thousands of sleepers by their addresses asks the one or two that a frame is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Those that have one of two addresses.
    Owners {
        /// Who has this address is asked for, by ARP request or neighbour solicitation. To all
        /// others the frame is of no use.
        asked: Option<IpAddr>,
        /// Another station says, or by its sender's address implies, that it has this one.
        claimed: Option<IpAddr>,
    },
    /// Those that answer to one of these names (see [`Persona::answers_to`]). To all others the frame, a
    /// question or a claim, is of no use; none are given if it asks nothing that makes sense.
    Named(Vec<NameDigest>),
    /// Any of them: a query for groups, or a message of DHCP.
    Everyone,
    /// None: no proxy answers or consumes it.
    Nobody,
}

/// The digest of a name and of the protocol that it is of. Two names can have the same one: it says
/// who is to be asked, not who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameDigest(u64);

impl NameDigest {
    /// Letters of either case are the same: of mDNS by RFC 6762 §16, of LLMNR by RFC 4795 §2.6.
    fn of(port: u16, name: &[u8]) -> Self {
        let mut key = Vec::with_capacity(2 + name.len());
        key.extend_from_slice(&port.to_be_bytes());
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        Self(digest(&key))
    }
}

impl Persona {
    /// The names that questions and claims to a group have to bear to concern it: each once, at most some
    /// hundred.
    #[must_use]
    pub fn answers_to(&self) -> BTreeSet<NameDigest> {
        let names = &self.names;
        let mdns = names.mdns.iter().map(|record| NameDigest::of(mdns::PORT, &record.name));
        let llmnr = names_of(self).map(|name| NameDigest::of(llmnr::PORT, name));
        let anybody = (!names.netbios.is_empty()).then_some(&ANYBODY);
        let netbios = names.netbios.iter().map(|own| &own.name).chain(anybody);
        mdns.chain(llmnr).chain(netbios.map(|name| NameDigest::of(netbios::PORT, name))).collect()
    }
}

/// The port of DHCP clients.
const DHCP_CLIENT: u16 = 68;

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
            Network::Ipv4(ip) => Self::of_datagram(frame, &ip),
            Network::Ipv6(ip) => match Neighbor::parse(&ip) {
                Some(Neighbor::Solicitation { target, .. }) => {
                    Self::Owners { asked: Some(target.into()), claimed: None }
                }
                Some(Neighbor::Advertisement { target, .. }) => {
                    Self::Owners { asked: None, claimed: Some(target.into()) }
                }
                None if ip.icmpv6_type() == Some(kind::MLD_QUERY) => Self::Everyone,
                None => Self::of_datagram(frame, &ip),
            },
            Network::Other(_) => Self::Nobody,
        }
    }

    const fn everyone_if(concerned: bool) -> Self {
        if concerned { Self::Everyone } else { Self::Nobody }
    }

    fn of_datagram<A>(frame: &Frame<'_>, ip: &IpPacket<'_, A>) -> Self {
        match ip.ports() {
            Some((_, port)) if ip.protocol == protocol::UDP => match port {
                DHCP_CLIENT => Self::Everyone,
                mdns::PORT | llmnr::PORT | netbios::PORT => Self::of_question(frame, port),
                _ => Self::Nobody,
            },
            _ => Self::Nobody,
        }
    }

    fn of_question(frame: &Frame<'_>, port: u16) -> Self {
        let datagram = Datagram::parse(frame);
        let flags = datagram.and_then(|datagram| u16_at(datagram.data, 2));
        let asks = |flags: u16| match (port, (flags & flag::OPCODE) >> 11) {
            (netbios::PORT, operation::REGISTRATION | operation::MULTI_HOMED) => true,
            (_, operation) => operation == operation::QUERY,
        };
        if !flags.is_some_and(|flags| flags & flag::RESPONSE == 0 && asks(flags)) {
            return Self::Nobody;
        }
        Self::Named(frame.dns().map_or_else(Vec::new, |message| asked(&message, port)))
    }
}

/// The names that a question or claim is about.
fn asked(message: &Message, port: u16) -> Vec<NameDigest> {
    let names = message.questions.iter().map(|question| &question.name[..]);
    match port {
        netbios::PORT => {
            let decoded = names.filter_map(netbios::decode);
            decoded.map(|name| NameDigest::of(port, &name)).collect()
        }
        llmnr::PORT => {
            let texts = names.filter_map(llmnr::text);
            texts.map(|name| NameDigest::of(port, name.as_bytes())).collect()
        }
        _ => names.map(|name| NameDigest::of(port, name)).collect(),
    }
}
