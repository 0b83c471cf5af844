//! Frames that the client sends and expects.

use dormouse_types::MacAddr;

pub(crate) const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const CLIENT_IP: [u8; 4] = [10, 9, 0, 1];
pub(crate) const GUEST_IP: [u8; 4] = [10, 9, 0, 2];
pub(crate) const GUEST_IP6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const CLIENT_IP6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Where the number of a numbered frame stands.
const NUMBER: usize = 14 + 20 + 8;

fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(CLIENT_IP);
    packet.extend(to);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// A UDP datagram with a number.
pub(crate) fn numbered(to: MacAddr, number: u32) -> Vec<u8> {
    let ip = if to.is_multicast() { [255; 4] } else { GUEST_IP };
    let mut udp = [7777_u16.to_be_bytes(), 7777_u16.to_be_bytes(), 58_u16.to_be_bytes(), [0, 0]].concat();
    udp.extend(number.to_be_bytes());
    udp.resize(58, 0);
    ethernet(to, CLIENT, 0x0800, &ipv4(17, ip, &udp))
}

/// A frame with a tag (IEEE 802.1Q).
pub(crate) fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// The number of a numbered frame.
pub(crate) fn number(frame: &[u8]) -> Option<u32> {
    let udp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
    udp.then(|| frame.get(NUMBER..NUMBER + 4).map(|n| u32::from_be_bytes(n.try_into().unwrap()))).flatten()
}

pub(crate) fn arp_request(target: [u8; 4]) -> Vec<u8> {
    arp(CLIENT, 1, CLIENT_IP, target)
}

/// What a guest says when it comes up.
pub(crate) fn announcement(mac: MacAddr, ip: [u8; 4]) -> Vec<u8> {
    arp(mac, 1, ip, ip)
}

fn arp(from: MacAddr, operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(from.0);
    body.extend(sender);
    body.extend([0; 6]);
    body.extend(target);
    body.resize(46, 0);
    ethernet(MacAddr::BROADCAST, from, 0x0806, &body)
}

pub(crate) fn ping(to: MacAddr) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, 1];
    icmp.extend(b"are you there?");
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ethernet(to, CLIENT, 0x0800, &ipv4(1, GUEST_IP, &icmp))
}

pub(crate) fn solicitation() -> Vec<u8> {
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11] = 1;
    group[12] = 0xff;
    group[13..].copy_from_slice(&GUEST_IP6[13..]);
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(GUEST_IP6);
    body.extend([1, 1]);
    body.extend(CLIENT.0);
    let mut pseudo = [CLIENT_IP6, group].concat();
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&body);
    let sum = checksum(&pseudo);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    packet.extend(CLIENT_IP6);
    packet.extend(group);
    packet.extend(body);
    ethernet(MacAddr([0x33, 0x33, 0xff, group[13], group[14], group[15]]), CLIENT, 0x86dd, &packet)
}

/// A TCP segment from the client: its flags, sequence and acknowledgement number.
pub(crate) fn tcp(to: MacAddr, ports: [u16; 2], flags: u8, [seq, ack]: [u32; 2]) -> Vec<u8> {
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = [CLIENT_IP, GUEST_IP].concat();
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ethernet(to, CLIENT, 0x0800, &ipv4(6, GUEST_IP, &segment))
}

/// Flags, sequence and acknowledgement number of a TCP segment to the client.
pub(crate) fn tcp_answer(frame: &[u8]) -> Option<(u8, u32, u32)> {
    let is_tcp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6);
    let word = |at: usize| frame.get(at..at + 4).map(|word| u32::from_be_bytes(word.try_into().unwrap()));
    is_tcp.then(|| Some((*frame.get(47)?, word(38)?, word(42)?))).flatten()
}

/// A report of a group by IGMPv2 (RFC 2236 §3), as the guest sends it.
pub(crate) fn join(from: MacAddr, group: [u8; 4]) -> Vec<u8> {
    let mut report = vec![0x16, 0, 0, 0];
    report.extend(group);
    let sum = checksum(&report);
    report[2..4].copy_from_slice(&sum.to_be_bytes());
    let [_, b, c, d] = group;
    let mut packet = vec![0x46, 0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0];
    packet.extend(GUEST_IP);
    packet.extend(group);
    packet.extend([0x94, 4, 0, 0]);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(report);
    ethernet(MacAddr([1, 0, 0x5e, b & 0x7f, c, d]), from, 0x0800, &packet)
}
