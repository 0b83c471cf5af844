//! Frames put together for tests, without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dormouse_types::MacAddr;
use smoltcp::wire::{Icmpv6Packet, IpAddress, Ipv4Packet, TcpPacket, UdpPacket};

/// A VLAN tag with priority 3.
pub fn tag(vlan: u16) -> [u8; 4] {
    let [high, low] = (0x6000 | vlan).to_be_bytes();
    [0x81, 0x00, high, low]
}

pub fn ethernet(dst: MacAddr, src: MacAddr, tags: &[u8], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, tags, &ethertype.to_be_bytes(), payload].concat()
}

/// `frame` with `tags` put in front of its EtherType.
pub fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes.extend_from_slice(payload);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len(u16::try_from(20 + payload.len()).unwrap());
    packet.set_hop_limit(64);
    packet.set_next_header(protocol.into());
    packet.set_src_addr(src);
    packet.set_dst_addr(dst);
    packet.fill_checksum();
    bytes
}

pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, len[0], len[1], next, hop_limit];
    [&head[..], &src.octets(), &dst.octets(), payload].concat()
}

/// IPv4 or IPv6 in Ethernet, as the addresses are.
pub fn ip_frame(macs: (MacAddr, MacAddr), src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(macs.1, macs.0, &[], 0x0800, &ipv4(src, dst, protocol, payload))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(macs.1, macs.0, &[], 0x86dd, &ipv6(src, dst, 64, protocol, payload))
        }
        _ => panic!("two families"),
    }
}

/// A segment or datagram; its checksum is left to the interface, as local senders do.
pub fn ports(protocol: u8, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; if protocol == 6 { 20 } else { 8 }];
    bytes.extend_from_slice(data);
    if protocol == 6 {
        let mut tcp = TcpPacket::new_unchecked(&mut bytes);
        tcp.set_src_port(source);
        tcp.set_dst_port(destination);
        tcp.set_header_len(20);
        tcp.set_syn(true);
    } else {
        let len = u16::try_from(bytes.len()).unwrap();
        let mut udp = UdpPacket::new_unchecked(&mut bytes);
        udp.set_src_port(source);
        udp.set_dst_port(destination);
        udp.set_len(len);
    }
    bytes
}

/// An echo request; `kind` is its type (8 or 128). No checksum: it is not looked at.
pub fn echo(kind: u8, ident: u16, seq: u16, data: &[u8]) -> Vec<u8> {
    let (ident, seq) = (ident.to_be_bytes(), seq.to_be_bytes());
    [&[kind, 0, 0, 0][..], &ident, &seq, data].concat()
}

pub fn arp(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let [high, low] = operation.to_be_bytes();
    let head = [0, 1, 8, 0, 6, 4, high, low];
    [&head[..], &sender.0.0, &sender.1.octets(), &target.0.0, &target.1.octets()].concat()
}

/// A neighbour solicitation with a source link-layer option if `option` is there.
pub fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, option: Option<MacAddr>) -> Vec<u8> {
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    if let Some(mac) = option {
        message.extend([1, 1]);
        message.extend(mac.0);
    }
    Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&src, &dst);
    ipv6(src, dst, 255, 58, &message)
}

/// The solicited-node group of `address` (RFC 4291 §2.7.1), and its Ethernet address (RFC 2464 §7).
pub fn solicited_node(address: Ipv6Addr) -> (Ipv6Addr, MacAddr) {
    let [.., a, b, c] = address.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    (group.into(), MacAddr([0x33, 0x33, 0xff, a, b, c]))
}

/// Is the checksum of this TCP or UDP packet right?
pub fn checksum_is_full(protocol: u8, payload: &[u8], src: IpAddress, dst: IpAddress) -> bool {
    match protocol {
        6 => TcpPacket::new_unchecked(payload).verify_checksum(&src, &dst),
        _ => UdpPacket::new_unchecked(payload).verify_checksum(&src, &dst),
    }
}
