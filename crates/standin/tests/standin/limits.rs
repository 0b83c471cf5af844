//! What is not taken, and what is bounded.

use std::time::Duration;

use dormouse_standin::MAX_CONNECTIONS;
use dormouse_types::{MacAddr, Timestamp};
use proptest::prelude::*;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Ipv4Packet, TcpPacket, TcpRepr},
};

use crate::raw::{CLIENT, Raw, SLEEPER, START, settle, take, web};

#[test]
fn only_what_is_for_a_service_is_taken() {
    let mut standin = web();
    let mut raw = Raw::new(40_000);
    raw.ack = Some(1);
    assert!(!take(&mut standin, &raw.data(80, b"x"), START).taken, "a connection of the machine's own");
    let mut raw = Raw::new(40_000);
    assert!(!take(&mut standin, &raw.syn(81), START).taken, "another port");
    let good = Raw::new(40_000).syn(80);
    let change = |at: usize, with: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + with.len()].copy_from_slice(with);
        frame
    };
    for (name, frame) in [
        ("another machine", change(5, &[3])),
        ("a group", change(0, &[0xff; 6])),
        ("from itself", change(6, &SLEEPER.0)),
        ("from a group", change(6, &[0x33])),
        ("another address", change(33, &[3])),
        ("from its own address", change(29, &[2])),
        ("UDP", change(23, &[17])),
        ("a fragment", change(20, &[0x20, 0])),
        ("from port 0", change(34, &[0, 0])),
        ("from a multicast address", change(26, &[224])),
        ("SYN and ACK", change(47, &[0x12])),
        ("SYN and FIN", change(47, &[0x03])),
        ("cut", good[..40].to_vec()),
        ("ARP", change(12, &[8, 6])),
    ] {
        let out = take(&mut standin, &frame, START);
        assert_eq!(out, dormouse_standin::Out::default(), "{name}");
    }
    assert_eq!(standin.deadline(), None);
    assert!(take(&mut standin, &good, START).taken);
}

#[test]
fn replies_go_to_where_the_last_segment_came_from() {
    let mut standin = web();
    let mut raw = Raw::new(40_000);
    let out = take(&mut standin, &raw.syn(80), START);
    assert_eq!(&out.frames[0][..12], [CLIENT.0, SLEEPER.0].concat());
    raw.hear(&out.frames[0]);
    let mut moved = raw.data(80, b"GET / HTTP/1.1\r\n\r\n");
    moved[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    let out = take(&mut standin, &moved, START);
    assert!(out.frames.len() > 1 && out.frames.iter().all(|f| f[..6] == MacAddr([2, 0, 0, 0, 0, 9]).0));
}

#[test]
fn segments_fit_the_link() {
    let mut standin = web();
    let out = take(&mut standin, &Raw::new(40_000).syn(80), START);
    let packet = Ipv4Packet::new_checked(&out.frames[0][14..]).unwrap();
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    assert!(
        packet.verify_checksum() && tcp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into())
    );
    let repr = TcpRepr::parse(
        &tcp,
        &packet.src_addr().into(),
        &packet.dst_addr().into(),
        &ChecksumCapabilities::default(),
    );
    assert_eq!(repr.unwrap().max_seg_size, Some(1460));
}

#[test]
fn first_sequence_numbers_differ_by_connection_time_and_secret() {
    let first = |port: u16, now: Timestamp| {
        let mut raw = Raw::new(port);
        let out = take(&mut web(), &raw.syn(80), now);
        raw.hear(&out.frames[0]);
        raw.ack
    };
    let later = START + Duration::from_millis(1);
    let numbers = [first(1, START), first(2, START), first(1, later)];
    assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{numbers:?}");
    assert_eq!(first(1, START), numbers[0], "nothing else makes it");
}

#[test]
fn no_more_connections_than_the_limit() {
    let mut standin = web();
    let mut clients: Vec<Raw> = (0..).map(|n| Raw::new(40_000 + n)).take(MAX_CONNECTIONS + 1).collect();
    for (number, raw) in clients.iter_mut().enumerate() {
        let out = take(&mut standin, &raw.syn(80), START);
        assert!(out.taken, "it is the stand-in's all the same");
        assert_eq!(out.frames.len(), usize::from(number < MAX_CONNECTIONS), "{number}");
        if let Some(frame) = out.frames.first() {
            raw.hear(frame);
            take(&mut standin, &raw.data(80, b"GET"), START);
        }
    }
    // In time there is room again: all of them were too slow.
    let end = settle(&mut standin);
    assert!(end.since(START) <= Duration::from_secs(200), "{:?}", end.since(START));
    assert_eq!(take(&mut standin, &Raw::new(1).syn(80), end).frames.len(), 1);
}

#[test]
fn half_open_connections_expire_without_a_word() {
    let mut standin = web();
    let mut raw = Raw::new(40_000);
    let first = take(&mut standin, &raw.syn(80), START).frames;
    let mut frames = Vec::new();
    while let Some(at) = standin.deadline() {
        frames.extend(standin.due(at).frames);
    }
    assert!(
        !frames.is_empty() && frames.iter().all(|again| again[34..46] == first[0][34..46]),
        "SYN-ACKs only"
    );
}

#[test]
fn what_comes_late_for_a_connection_that_was_is_refused() {
    let mut standin = web();
    let mut raw = Raw::new(40_000);
    let out = take(&mut standin, &raw.syn(80), START);
    raw.hear(&out.frames[0]);
    take(&mut standin, &raw.data(80, b"GET"), START);
    let now = START + Duration::from_secs(31);
    while standin.deadline().is_some_and(|at| at <= now) {
        standin.due(now);
    }
    let out = take(&mut standin, &raw.data(80, b" /"), now);
    assert!(out.taken && out.wake.is_none());
    let [frame] = &out.frames[..] else { panic!("{out:?}") };
    assert!(TcpPacket::new_checked(&frame[34..]).unwrap().rst());
    let later = now + Duration::from_secs(61);
    assert!(!take(&mut standin, &raw.data(80, b" HTTP"), later).taken, "forgotten");
}

#[test]
fn the_end_frees_everything_and_tells_only_those_connected() {
    let mut standin = web();
    let mut open = Raw::new(40_000);
    let out = take(&mut standin, &open.syn(80), START);
    open.hear(&out.frames[0]);
    take(&mut standin, &open.data(80, b"GET"), START);
    take(&mut standin, &Raw::new(40_001).syn(80), START);
    let out = standin.end(START);
    let [frame] = &out.frames[..] else { panic!("{out:?}") };
    let tcp = TcpPacket::new_checked(&frame[34..]).unwrap();
    assert!(tcp.rst() && tcp.dst_port() == 40_000);
    assert_eq!(standin.deadline(), None);
    assert!(!take(&mut standin, &open.data(80, b" "), START).taken, "it is the machine's now");
}

proptest! {
    #[test]
    fn nothing_in_a_frame_can_break_it(
        frames in prop::collection::vec((0u16..4, 0u8..64, any::<bool>(), prop::collection::vec((14usize..80, any::<u8>()), 0..4), 0u64..3000), 1..40),
    ) {
        let mut standin = web();
        let mut now = START;
        let mut raws: Vec<Raw> = (0..4).map(|n| Raw::new(40_000 + n)).collect();
        for (client, flags, heard, changes, wait) in frames {
            now = now + Duration::from_millis(wait);
            if standin.deadline().is_some_and(|at| at <= now) {
                standin.due(now);
                prop_assert!(standin.deadline().is_none_or(|at| at > now));
            }
            let raw = &mut raws[usize::from(client)];
            let mut frame = raw.data(80, b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n");
            frame[47] = flags;
            for (at, with) in changes {
                if let Some(octet) = frame.get_mut(at) {
                    *octet = with;
                }
            }
            let out = take(&mut standin, &frame, now);
            prop_assert!(out.taken || out == dormouse_standin::Out::default());
            if let Some(reply) = out.frames.first().filter(|_| heard) {
                let tcp = TcpPacket::new_checked(&reply[34..]).unwrap();
                raw.ack = Some(tcp.seq_number().0.wrapping_add(1));
                raw.seq = tcp.ack_number().0;
            }
        }
        standin.end(now);
        prop_assert_eq!(standin.deadline(), None);
    }
}
