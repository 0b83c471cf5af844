//! What must be true of every reply, checked with smoltcp's strict parsers.

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Context, Frame, Identity, Memory, Persona, Response, standard};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet,
        Ipv4Repr,
    },
    wire::{Ipv6Packet, Ipv6Repr, NdiscRepr},
};

const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// What each responder says of a frame for a sleeper that has shown nothing of itself.
pub fn responses(frame: &Frame<'_>, who: &Identity) -> Vec<Response> {
    let (persona, now) = (Persona::default(), Timestamp(1));
    let respond = |responder: &&dyn dormouse_wire::Responder| {
        let memory = &mut Memory::default();
        responder.respond(frame, &mut Context { who, persona: &persona, now, memory })
    };
    standard().iter().map(respond).collect()
}

/// The replies of all responders to `bytes`, each checked by [`sound`].
pub fn replies(bytes: &[u8], who: &Identity) -> Vec<Vec<u8>> {
    let Some(frame) = Frame::new(bytes) else { return Vec::new() };
    let replies: Vec<_> = responses(&frame, who)
        .into_iter()
        .filter_map(|response| match response {
            Response::Reply(reply) => Some(reply),
            _ => None,
        })
        .collect();
    assert!(replies.len() <= 1, "two responders answered one frame");
    replies.iter().for_each(|reply| sound(&frame, reply, who));
    replies
}

/// The one reply to `bytes`.
pub fn reply(bytes: &[u8], who: &Identity) -> Vec<u8> {
    replies(bytes, who).pop().expect("a reply")
}

/// A reply is from the sleeper's Ethernet address and one of its IP addresses, goes to one
/// station (or is the answer to a duplicate check, or to a rival's claim), stays in the VLAN, has right checksums, and
/// is not much longer than what it answers.
pub fn sound(request: &Frame<'_>, bytes: &[u8], who: &Identity) {
    let reply = Frame::new(bytes).expect("a whole frame");
    assert_eq!(reply.src(), who.mac);
    assert_eq!(reply.tags(), request.tags());
    assert_eq!(reply.ethertype(), request.ethertype());
    assert_ne!(reply.dst(), who.mac);
    assert!(bytes.len() <= request.bytes().len() + 8, "amplified");
    let to_all = match reply.ethertype() {
        0x0806 => arp(&reply, who),
        0x0800 => icmpv4(&reply, who),
        0x86dd => icmpv6(&reply, who),
        other => panic!("a reply of type {other:#x}"),
    };
    if to_all {
        assert!([ALL_NODES_MAC, MacAddr::BROADCAST].contains(&reply.dst()));
    } else {
        assert!(!reply.dst().is_multicast(), "a reply to a group");
    }
}

/// Is it an announcement, to all stations?
fn arp(reply: &Frame<'_>, who: &Identity) -> bool {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = ArpRepr::parse(&ArpPacket::new_checked(reply.payload()).unwrap()).unwrap()
    else {
        panic!("not for IPv4")
    };
    assert_eq!(source_hardware_addr.0, who.mac.0);
    assert!(who.has(source_protocol_addr));
    let defends = operation == ArpOperation::Request;
    if defends {
        assert_eq!((source_protocol_addr, [0; 6]), (target_protocol_addr, target_hardware_addr.0));
    } else {
        assert_eq!(target_hardware_addr.0, reply.dst().0);
    }
    defends
}

fn icmpv4(reply: &Frame<'_>, who: &Identity) -> bool {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(reply.payload()).unwrap();
    let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
    assert!(who.has(ip.src_addr));
    assert_eq!(usize::from(packet.total_len()), reply.payload().len());
    let message =
        Icmpv4Repr::parse(&Icmpv4Packet::new_checked(packet.payload()).unwrap(), &checksums).unwrap();
    assert!(matches!(message, Icmpv4Repr::EchoReply { .. }));
    false
}

/// Is it an advertisement to all nodes?
fn icmpv6(reply: &Frame<'_>, who: &Identity) -> bool {
    let packet = Ipv6Packet::new_checked(reply.payload()).unwrap();
    let ip = Ipv6Repr::parse(&packet).unwrap();
    assert!(who.has(ip.src_addr));
    assert_eq!(packet.total_len(), reply.payload().len());
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    match Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &message, &ChecksumCapabilities::default()).unwrap() {
        Icmpv6Repr::EchoReply { .. } => false,
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. }) => {
            assert_eq!(ip.hop_limit, 255);
            assert_eq!(target_addr, ip.src_addr);
            assert_eq!(lladdr.unwrap().as_bytes(), who.mac.0);
            ip.dst_addr.is_multicast()
        }
        other => panic!("{other:?}"),
    }
}
