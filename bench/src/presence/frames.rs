//! The questions.

use std::net::Ipv4Addr;

use super::{ASKER, address, mac};

/// Broadcast: who has the nth sleeper's address?
pub(crate) fn arp_request(from: [u8; 6], n: u32) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], from, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from);
    frame.extend(ASKER.octets());
    frame.extend([0; 6]);
    frame.extend(address(n).octets());
    frame
}

/// An echo request to the nth sleeper, at the Ethernet address `to`.
pub(super) fn echo_request(from: [u8; 6], to: [u8; 6], n: u32) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x64, 0x6d, 0, 1];
    icmp.extend([0x55; 56]);
    seal(&mut icmp, 2, 0);
    ipv4(from, to, address(n), 1, &icmp)
}

/// A SYN to the nth sleeper's port 22.
pub(super) fn syn(from: [u8; 6], n: u32, source_port: u16) -> Vec<u8> {
    let mut tcp = source_port.to_be_bytes().to_vec();
    tcp.extend([0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = ASKER.octets().into_iter().chain(address(n).octets()).chain([0, 6, 0, 20]);
    let sum = words(&pseudo.collect::<Vec<_>>());
    seal(&mut tcp, 16, sum);
    ipv4(from, mac(n), address(n), 6, &tcp)
}

/// A datagram to the nth sleeper that no rule names.
pub(super) fn datagram(from: [u8; 6], n: u32) -> Vec<u8> {
    // Without a checksum, which IPv4 allows.
    let mut udp = vec![0x30, 0x39, 0x30, 0x39, 0, 26, 0, 0];
    udp.extend([0; 18]);
    ipv4(from, mac(n), address(n), 17, &udp)
}

fn ipv4(from: [u8; 6], to: [u8; 6], destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header.extend(ASKER.octets());
    header.extend(destination.octets());
    seal(&mut header, 10, 0);
    let mut frame = ethernet(to, from, 0x0800);
    frame.extend(header);
    frame.extend(payload);
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    to.into_iter().chain(from).chain(ethertype.to_be_bytes()).collect()
}

/// Puts the Internet checksum (RFC 1071) at an offset, `sum` counted in.
fn seal(bytes: &mut [u8], at: usize, sum: u32) {
    let mut sum = sum + words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    bytes[at..at + 2].copy_from_slice(&[high, low]);
}

fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use dormouse_wire::{Frame, Identity, Network, Outcome, Persona, Policy, Proxy};

    use super::*;

    const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn sleepers_answer_the_questions() {
        let who = Identity {
            mac: dormouse_types::MacAddr(mac(300)),
            addresses: vec![address(300).into()],
            configured: true,
        };
        let mut proxy = Proxy::new(who, Persona::default(), Policy::default(), dormouse_types::Timestamp(0));
        for frame in [arp_request(FROM, 300), echo_request(FROM, mac(300), 300)] {
            let (_, response) = proxy.take(&Frame::new(&frame).unwrap(), dormouse_types::Timestamp(0));
            assert!(matches!(response, Outcome::Reply(_)), "{response:?}");
        }
    }

    #[test]
    fn nothing_is_wrong_with_the_rest() {
        for frame in [syn(FROM, 7, 40_000), datagram(FROM, 7)] {
            let frame = Frame::new(&frame).unwrap();
            let Network::Ipv4(ip) = frame.network() else { panic!("not IPv4") };
            assert!(ip.complete && ip.ports().is_some(), "{ip:?}");
        }
    }
}
