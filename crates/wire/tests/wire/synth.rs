//! Frames put together from descriptions, read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dormouse_types::MacAddr;
use dormouse_wire::{Frame, Identity, Network, SynthError, frame_from_text, is_magic, summary};
use proptest::prelude::*;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpAddress, Ipv4Packet, TcpPacket, UdpPacket};

use crate::{MAC_2, host_2, packets};

fn line(text: &str) -> String {
    summary(&frame_from_text(text, &host_2()).unwrap())
}

#[test]
fn descriptions_are_frames() {
    for (text, expected) in [
        ("tcp 10.0.0.9:5555 > :22", "tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]"),
        ("tcp 10.0.0.9 > 10.9.0.7:22", "tcp 10.0.0.9:40000 > 10.9.0.7:22 [S]"),
        ("tcp [fd77::1]:5555 > :22 flags SYN,ACK", "tcp [fd77::1]:5555 > [fd77::2]:22 [S.]"),
        ("tcp fd77::1 > [fd77::7]:22 flags FIN|ACK", "tcp [fd77::1]:40000 > [fd77::7]:22 [F.]"),
        ("tcp 10.0.0.9 > :22 flags data", "tcp 10.0.0.9:40000 > 10.9.0.2:22 [P.], 5 octets"),
        ("vlan 7 udp 10.0.0.9:53 > :5353", "vlan 7 udp 10.0.0.9:53 > 10.9.0.2:5353, 5 octets"),
        ("sctp 10.0.0.9:1 > :36412", "sctp 10.0.0.9:1 > 10.9.0.2:36412, 32 octets"),
        ("icmp 10.0.0.9", "icmp echo request 10.0.0.9 > 10.9.0.2 id 1 seq 1"),
        ("icmp fd77::1 > fd77::7", "icmp6 echo request fd77::1 > fd77::7 id 1 seq 1"),
        ("arp who-has 10.9.0.2 tell 10.9.0.1", "arp who-has 10.9.0.2 tell 10.9.0.1"),
    ] {
        assert_eq!(line(text), expected, "{text}");
    }
    let magic = frame_from_text("magic", &host_2()).unwrap();
    assert!(is_magic(&Frame::new(&magic).unwrap(), MAC_2));
}

#[test]
fn lines_of_tcp_are_descriptions_too() {
    for packet in [&packets::SYN, &packets::SYN6, &packets::RST] {
        let told = summary(&packet.bytes());
        assert_eq!(line(&told), told);
    }
    let data = "tcp 10.9.0.1:5555 > 10.9.0.2:22 [FP.], 1400 octets";
    assert_eq!(line(data), data);
}

#[test]
fn hex_is_taken_as_it_is() {
    let syn = packets::SYN.bytes();
    let digits: Vec<String> = syn.iter().map(|octet| format!("{octet:02X}")).collect();
    assert_eq!(frame_from_text(&format!("hex {}", digits.concat()), &host_2()).unwrap(), syn);
    assert_eq!(frame_from_text(&format!("hex {}", digits.join(":")), &host_2()).unwrap(), syn);
    assert_eq!(frame_from_text(&format!("hex {}", digits.join(" ")), &host_2()).unwrap(), syn);
    for wrong in ["hex", "hex 52", "hex 5254000000025254000000010", "hex 52540000000252540000000108xx"] {
        assert_eq!(frame_from_text(wrong, &host_2()), Err(SynthError::Hex), "{wrong}");
    }
    assert_eq!(frame_from_text(&format!("hex {}", "00".repeat(9217)), &host_2()), Err(SynthError::Hex));
}

#[test]
fn errors_show_an_example() {
    for (text, parts) in [
        ("", ["\"\" is no kind", "tcp 10.0.0.9:5555 > :22"]),
        ("ping 10.0.0.9", ["\"ping\"", "icmp 10.0.0.9"]),
        ("tcp", ["\"\"", "the source's address"]),
        ("tcp ten > :22", ["\"ten\"", "the source's address"]),
        ("tcp :5 > :22", ["\":5\"", "the source's address"]),
        ("tcp 10.0.0.9", ["a blank and >", "tcp 10.0.0.9:5555 > :22"]),
        ("tcp 10.0.0.9 > 10.9.0.2", ["\"10.9.0.2\"", "the machine's port"]),
        ("tcp 10.0.0.9 > :70000", ["\":70000\"", "address or port"]),
        ("tcp 10.0.0.9 > :22 SYN", ["\"SYN\"", "flags SYN"]),
        ("tcp 10.0.0.9 > :22 flags URG", ["\"URG\"", "SYN, FIN, RST, ACK and data"]),
        ("tcp 10.0.0.9 > :22 [X]", ["\"[X]\"", "S, F, R, P and ."]),
        ("tcp 10.0.0.9 > [fd77::2]:22", ["10.0.0.9 and fd77::2", "two IPv4 or two IPv6"]),
        ("udp 10.0.0.9 > :53 flags SYN", ["\"flags\"", "the end"]),
        ("vlan 4095 magic", ["\"4095\"", "1 to 4094"]),
        ("magic now", ["\"now\"", "the end"]),
        ("arp who-has fd77::2 tell 10.9.0.1", ["fd77::2", "IPv4 address"]),
        ("arp 10.9.0.2", ["\"10.9.0.2\"", "who-has"]),
        ("icmp 10.0.0.9 10.9.0.2", ["\"10.9.0.2\"", "> and the machine's address"]),
    ] {
        let error = frame_from_text(text, &host_2()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text:?}: {error:?} lacks {part:?}");
        }
    }
    let nameless = Identity { mac: MAC_2, addresses: vec!["fd77::2".parse().unwrap()], configured: true };
    assert_eq!(frame_from_text("tcp 10.0.0.9 > :22", &nameless), Err(SynthError::Unaddressed("IPv4")));
}

/// Checksums as smoltcp sees them.
fn is_sound(frame: &Frame<'_>, src: IpAddr, dst: IpAddr) -> bool {
    let (src_addr, dst_addr): (IpAddress, IpAddress) = (src.into(), dst.into());
    let (number, payload) = match frame.network() {
        Network::Ipv4(ip) => {
            assert!(Ipv4Packet::new_checked(frame.payload()).unwrap().verify_checksum() && ip.complete);
            (ip.protocol, ip.payload)
        }
        Network::Ipv6(ip) => (ip.protocol, ip.payload),
        other => panic!("{other:?}"),
    };
    match (number, src, dst) {
        (6, ..) => TcpPacket::new_checked(payload).unwrap().verify_checksum(&src_addr, &dst_addr),
        (17, ..) => UdpPacket::new_checked(payload).unwrap().verify_checksum(&src_addr, &dst_addr),
        (1, ..) => Icmpv4Packet::new_checked(payload).unwrap().verify_checksum(),
        (58, IpAddr::V6(src), IpAddr::V6(dst)) => {
            Icmpv6Packet::new_checked(payload).unwrap().verify_checksum(&src, &dst)
        }
        _ => true,
    }
}

proptest! {
    #[test]
    fn what_is_described_is_read_back(
        kind in prop::sample::select(vec!["tcp", "udp", "sctp"]), v6: bool,
        a: [u8; 16], b: [u8; 16], from in 1u16.., to in 1u16.., vlan in prop::option::of(1u16..4095),
    ) {
        let address = |octets: [u8; 16]| if v6 {
            IpAddr::from(Ipv6Addr::from(octets))
        } else {
            IpAddr::from(Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]]))
        };
        let (src, dst) = (std::net::SocketAddr::new(address(a), from), std::net::SocketAddr::new(address(b), to));
        let tag = vlan.map(|vlan| format!("vlan {vlan} ")).unwrap_or_default();
        let bytes = frame_from_text(&format!("{tag}{kind} {src} > {dst}"), &host_2()).unwrap();
        let told = summary(&bytes);
        prop_assert!(told.starts_with(&format!("{tag}{kind} {src} > {dst}")), "{}", told);
        let frame = Frame::new(&bytes).unwrap();
        prop_assert_eq!((frame.vlan(), frame.dst()), (vlan, MAC_2));
        prop_assert!(frame.src() != MAC_2 && frame.src() != MacAddr::BROADCAST);
        prop_assert!(is_sound(&frame, src.ip(), dst.ip()));
        let ping = frame_from_text(&format!("icmp {} > {}", src.ip(), dst.ip()), &host_2()).unwrap();
        prop_assert!(is_sound(&Frame::new(&ping).unwrap(), src.ip(), dst.ip()));
    }

    #[test]
    fn any_text_is_a_frame_or_an_error(
        text in "\\PC*",
        like in "(vlan 5 )?(tcp|udp|icmp|arp|hex|magic) [0-9a-f.:\\[\\]]{0,20}( > [0-9.:]{0,20})?( (flags|\\[)[A-Za-z,.\\]]{0,9})?",
    ) {
        for text in [text, like] {
            if let Ok(bytes) = frame_from_text(&text, &host_2()) {
                prop_assert!(Frame::new(&bytes).is_some() && bytes.len() <= 10_000);
            }
        }
    }
}
