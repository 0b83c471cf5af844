//! Packet sockets and taps on real links. Each test has a network namespace of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use dormouse_sys::{
    Batch, Frame, PacketSocket, SendError, VlanTag, VnetHdr,
    packet::{self, Direction, Filter},
    tap,
};
use dormouse_types::MacAddr;

const MIB: u32 = 1 << 20;
const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 3]);

/// Runs a test in a new network namespace, which ends with its thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let body = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// A link that speaks only when spoken by.
fn quiet(link: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {link} up"));
}

fn veth() {
    ip("link add v0 type veth peer name v1");
    quiet("v0");
    quiet("v1");
    // Until the kernel has taken note of both being up, it drops what is sent.
    for link in ["v0", "v1"] {
        until(|| {
            let output = Command::new("ip").args(["link", "show", link]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().contains("state UP")
        });
    }
}

fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, &ethertype.to_be_bytes()[..], payload].concat()
}

/// Tries until it holds: the far end of a link gets a frame some time after it was sent.
fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The `count` frames that a socket gets, each turned to something by `read`.
fn receive<T>(socket: &PacketSocket, longest: usize, count: usize, read: impl Fn(&Frame<'_>) -> T) -> Vec<T> {
    let mut batch = Batch::new(64, longest);
    let mut got = Vec::new();
    until(|| {
        socket.receive(&mut batch).unwrap();
        got.extend(batch.frames().map(|frame| read(&frame)));
        got.len() >= count
    });
    got
}

/// What a socket gets, by the last byte of each frame.
fn last_bytes(socket: &PacketSocket, count: usize) -> Vec<u8> {
    receive(socket, 2048, count, |frame| *frame.bytes.last().unwrap())
}

#[test]
fn frames_and_headers_come_through_as_they_were_sent() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", 8 * MIB).unwrap();
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        // A TCP segment of 3000 bytes of payload, to be cut at 1000, with its checksum to be done.
        let mut frame = ethernet(GUEST, OTHER, 0x0800, &[]);
        frame.extend([0x45, 0, 0x0b, 0xe0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        frame.resize(14 + 20 + 20 + 3000, 0xaa);
        let mut header = VnetHdr::PLAIN;
        header.0[..2].copy_from_slice(&[1, 1]);
        for (at, value) in [(2, 54u16), (4, 1000), (6, 34), (8, 16)] {
            header.0[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        sender.send(&header, &frame).unwrap();
        sender.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[7; 50])).unwrap();

        let plain = |f: &Frame<'_>| !f.outgoing && !f.truncated && f.vlan.is_none() && f.mark == 0;
        let frames = receive(&receiver, Batch::LONGEST, 2, |f| (f.header, f.bytes.to_vec(), plain(f)));
        let (got, bytes, _) = &frames[0];
        assert!(got.is_gso() && got.needs_checksum());
        assert_eq!((got.segment_size(), got.checksum_start()), (1000, 34));
        // From the end of the headers on nothing may differ; the kernel completes the IP header.
        assert_eq!((bytes.len(), &bytes[54..]), (frame.len(), &frame[54..]));
        assert_eq!((frames[1].0, frames[1].1[14..].len()), (VnetHdr::PLAIN, 50));
        assert!(frames.iter().all(|(_, _, plain)| *plain));
        let mut batch = Batch::new(8, 2048);
        assert_eq!(receiver.receive(&mut batch).unwrap(), 0, "there was no more");
        assert_eq!(batch.frames().len(), 0);
        assert_eq!(receiver.statistics().unwrap(), packet::Statistics { frames: 2, dropped: 0 });
        assert_eq!(receiver.statistics().unwrap(), packet::Statistics::default());
    });
}

#[test]
fn what_this_host_sends_is_not_received() {
    in_namespace(|| {
        veth();
        let socket = PacketSocket::open_receive("v0", MIB).unwrap();
        let far_end = PacketSocket::open_receive("v1", MIB).unwrap();
        socket.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[1; 50])).unwrap();
        // The far end has it, so it is through.
        assert_eq!(last_bytes(&far_end, 1), [1]);
        assert_eq!(socket.receive(&mut Batch::new(8, 2048)).unwrap(), 0);
    });
}

#[test]
fn a_vlan_tag_is_put_back() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", MIB).unwrap();
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        let tagged = ethernet(GUEST, OTHER, 0x8100, &[&[0xa0, 0x07, 0x88, 0xb5][..], &[9; 60]].concat());
        sender.send(&VnetHdr::PLAIN, &tagged).unwrap();
        let got = receive(&receiver, 2048, 1, |f| (f.vlan.unwrap(), f.bytes[12..14].to_vec(), f.restored()));
        let (tag, kind, restored) = &got[0];
        assert_eq!(*tag, VlanTag { protocol: 0x8100, control: 0xa007 });
        assert_eq!((tag.id(), &kind[..]), (7, &[0x88, 0xb5][..]));
        assert_eq!(*restored, (VnetHdr::PLAIN, tagged));
    });
}

#[test]
fn a_frame_longer_than_the_buffer_says_so() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", MIB).unwrap();
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        sender.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[1; 400])).unwrap();
        sender.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[2; 40])).unwrap();
        let told = receive(&receiver, 100, 2, |f| (f.bytes.len(), f.length, f.truncated));
        assert_eq!(told, [(100, 414, true), (54, 54, false)]);
    });
}

#[test]
fn many_frames_are_sent_in_order() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", 8 * MIB).unwrap();
        let sender = PacketSocket::open_inject("v0", true, MIB).unwrap();
        let frames: Vec<_> = (0..200).map(|n| ethernet(GUEST, OTHER, 0x88b5, &[n; 50])).collect();
        let to_send: Vec<_> = frames.iter().map(|frame| (VnetHdr::PLAIN, &frame[..])).collect();
        assert_eq!(sender.send_many(&to_send).unwrap(), 200);
        assert_eq!(sender.send_many(&[]).unwrap(), 0);
        let got = last_bytes(&receiver, 200);
        assert_eq!(got, (0..200).collect::<Vec<u8>>());
        // A frame that cannot be sent is not skipped.
        let short = [0; 4];
        let mixed = [to_send[0], (VnetHdr::PLAIN, &short[..]), to_send[1]];
        assert_eq!(sender.send_many(&mixed).unwrap(), 1);
        assert!(sender.send_many(&mixed[1..]).is_err());
    });
}

#[test]
fn a_listener_gets_what_its_filter_says() {
    in_namespace(|| {
        veth();
        let sniff = |filter| PacketSocket::open_sniff("v1", &filter, MIB).unwrap();
        let group = sniff(Filter::group(Direction::Incoming, 2048));
        let from = sniff(Filter::speech(GUEST, 20));
        let persona = sniff(Filter::persona(GUEST, 2048));
        let outgoing = sniff(Filter::all(Direction::Outgoing, 2048));
        let both = sniff(Filter::all(Direction::Both, 2048));
        let (a, b) = (
            PacketSocket::open_inject("v0", false, MIB).unwrap(),
            PacketSocket::open_inject("v1", false, MIB).unwrap(),
        );
        let ipv6 = |next: u8, n: u8| [&[0x60, 0, 0, 0, 0, 1, next, 255][..], &[0; 32], &[n; 20]].concat();
        let send = |socket: &PacketSocket, to, from, kind, payload: &[u8]| {
            socket.send(&VnetHdr::PLAIN, &ethernet(to, from, kind, payload)).unwrap();
        };
        send(&a, MacAddr::BROADCAST, GUEST, 0x0806, &[1; 46]);
        send(&a, OTHER, GUEST, 0x86dd, &ipv6(58, 2));
        send(&a, OTHER, GUEST, 0x86dd, &ipv6(17, 3));
        send(&a, OTHER, GUEST, 0x88b5, &[4; 46]);
        send(&a, MacAddr::BROADCAST, OTHER, 0x0806, &[5; 46]);
        send(&b, OTHER, GUEST, 0x0806, &[6; 46]);
        assert_eq!(last_bytes(&both, 6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(last_bytes(&group, 2), [1, 5]);
        assert_eq!(last_bytes(&persona, 2), [1, 2]);
        let cut = receive(&from, 2048, 4, |f| (f.bytes.len(), f.length > 20, f.truncated));
        assert_eq!(cut, [(20, true, true); 4]);
        let sent = receive(&outgoing, 2048, 1, |f| (f.outgoing, *f.bytes.last().unwrap()));
        assert_eq!(sent, [(true, 6)]);
    });
}

/// An IPv4 packet with options, so that its header's length has to be looked at.
fn ipv4(protocol: u8, fragment: u8, ports: [u16; 2], n: u8) -> Vec<u8> {
    let mut packet = vec![0x46, 0, 0, 44, 0, 0, 0, fragment, 64, protocol, 0, 0];
    packet.extend([0; 12]);
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend([n; 16]);
    packet
}

fn ipv6(next: u8, payload: &[u8], n: u8) -> Vec<u8> {
    [&[0x60, 0, 0, 0, 0, 24, next, 255][..], &[0; 32], payload, &[n; 16]].concat()
}

#[test]
fn a_guests_persona_is_heard_and_nothing_else_of_it() {
    in_namespace(|| {
        veth();
        let persona = PacketSocket::open_sniff("v1", &Filter::speech(GUEST, 2048), MIB).unwrap();
        persona.set_filter(&Filter::persona(GUEST, 2048)).unwrap();
        let all = PacketSocket::open_sniff("v1", &Filter::all(Direction::Both, 2048), MIB).unwrap();
        let guest = PacketSocket::open_inject("v0", false, MIB).unwrap();
        let bridge = PacketSocket::open_inject("v1", false, MIB).unwrap();
        let ports = |from: u16, to: u16| [from.to_be_bytes(), to.to_be_bytes()].concat();
        // What the guest says of itself, what it says else, and what is said to it.
        let said = [
            (0x0800, ipv4(2, 0, [0, 0], 1)),
            (0x0800, ipv4(17, 0, [68, 67], 2)),
            (0x0800, ipv4(17, 0, [5353, 5353], 3)),
            (0x0800, ipv4(17, 0, [5355, 40000], 4)),
            (0x0800, ipv4(17, 0, [40000, 137], 5)),
            (0x86dd, ipv6(0, &[58, 0, 5, 2, 0, 0, 0, 0], 6)),
            (0x86dd, ipv6(17, &ports(546, 547), 7)),
            (0x86dd, ipv6(17, &ports(5353, 5353), 8)),
        ];
        let other = [
            (0x0800, ipv4(17, 0, [40000, 53], 20)),
            (0x0800, ipv4(6, 0, [67, 68], 21)),
            (0x0800, ipv4(17, 9, [67, 68], 22)),
            (0x86dd, ipv6(0, &[17, 0, 5, 2, 0, 0, 0, 0], 23)),
            (0x86dd, ipv6(17, &ports(40000, 53), 24)),
            (0x86dd, ipv6(6, &ports(546, 547), 25)),
        ];
        let heard = [(0x0800, ipv4(17, 0, [67, 68], 40)), (0x0800, ipv4(17, 0, [137, 137], 45))];
        let unheard = [
            (0x0800, ipv4(17, 0, [68, 67], 41)),
            (0x0800, ipv4(17, 0, [5353, 5353], 42)),
            (0x0800, ipv4(17, 1, [67, 68], 43)),
            (0x86dd, ipv6(17, &ports(547, 546), 44)),
        ];
        for (kind, packet) in said.iter().chain(&other) {
            guest.send(&VnetHdr::PLAIN, &ethernet(OTHER, GUEST, *kind, packet)).unwrap();
        }
        for (kind, packet) in heard.iter().chain(&unheard) {
            bridge.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, *kind, packet)).unwrap();
        }
        assert_eq!(last_bytes(&all, 20).len(), 20);
        assert_eq!(last_bytes(&persona, 10), [1, 2, 3, 4, 5, 6, 7, 8, 40, 45]);
    });
}

#[test]
fn what_waits_is_known_and_no_less_than_its_octets() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", MIB).unwrap();
        assert_eq!(receiver.waiting().unwrap(), 0);
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        let lengths = [0_usize, 46, 500, 1400];
        for length in lengths {
            let frame = ethernet(GUEST, OTHER, 0x88b5, &vec![1; length]);
            sender.send(&VnetHdr::PLAIN, &frame).unwrap();
        }
        let least: u64 = lengths.iter().map(|length| PacketSocket::OVERHEAD + 14 + *length as u64).sum();
        until(|| receiver.waiting().unwrap() >= least);
        let all = receive(&receiver, 2048, lengths.len(), |frame| frame.bytes.len());
        assert_eq!(all, lengths.map(|length| 14 + length));
        assert_eq!(receiver.waiting().unwrap(), 0);
    });
}

#[test]
fn frames_dropped_by_a_full_buffer_are_counted() {
    in_namespace(|| {
        veth();
        let receiver = PacketSocket::open_receive("v1", 16 * 1024).unwrap();
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        for _ in 0..500 {
            sender.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[1; 1000])).unwrap();
        }
        let mut sum = packet::Statistics::default();
        until(|| {
            let more = receiver.statistics().unwrap();
            sum.frames += more.frames;
            sum.dropped += more.dropped;
            sum.frames == 500
        });
        let mut batch = Batch::new(500, 2048);
        let got = receiver.receive(&mut batch).unwrap() as u64;
        assert!(sum.dropped > 0);
        assert_eq!(got + sum.dropped, 500);
    });
}

#[test]
fn links_that_fail_are_told_apart() {
    in_namespace(|| {
        assert!(
            matches!(PacketSocket::open_receive("nope", MIB), Err(packet::Error::NoLink(name)) if name == "nope")
        );
        veth();
        let sender = PacketSocket::open_inject("v0", false, MIB).unwrap();
        let receiver = PacketSocket::open_receive("v0", MIB).unwrap();
        let frame = ethernet(GUEST, OTHER, 0x88b5, &[1; 50]);
        assert!(matches!(
            sender.send(&VnetHdr::PLAIN, &[1, 2, 3]),
            Err(SendError::Header | SendError::Length)
        ));
        assert!(matches!(sender.send(&VnetHdr::PLAIN, &[1; 4000]), Err(SendError::Length)));
        ip("link set v0 down");
        assert!(matches!(sender.send(&VnetHdr::PLAIN, &frame), Err(SendError::LinkDown)));
        let mut batch = Batch::new(8, 2048);
        assert!(matches!(receiver.receive(&mut batch), Err(packet::Error::LinkDown)));
        assert_eq!(receiver.receive(&mut batch).unwrap(), 0, "told once");
        ip("link set v0 up");
        sender.send(&VnetHdr::PLAIN, &frame).unwrap();
        ip("link del v0");
        assert!(matches!(sender.send(&VnetHdr::PLAIN, &frame), Err(SendError::LinkGone)));
    });
}

#[test]
fn a_tap_carries_frames_both_ways() {
    in_namespace(|| {
        let queue = tap::open("t0").unwrap();
        quiet("t0");
        assert_eq!(tap::header_len(&queue).unwrap(), VnetHdr::LEN);
        let host = PacketSocket::open_receive("t0", MIB).unwrap();
        let inject = PacketSocket::open_inject("t0", true, MIB).unwrap();
        assert!(tap::is_empty(&queue).unwrap());

        let to_guest = ethernet(GUEST, OTHER, 0x88b5, &[1; 50]);
        inject.send(&VnetHdr::PLAIN, &to_guest).unwrap();
        assert!(!tap::is_empty(&queue).unwrap());
        let mut buffer = vec![0; Batch::LONGEST + 12];
        assert_eq!(tap::read_frame(&queue, &mut buffer).unwrap(), Some((VnetHdr::PLAIN, &to_guest[..])));
        assert!(tap::is_empty(&queue).unwrap());
        assert_eq!(tap::read_frame(&queue, &mut buffer).unwrap(), None);

        tap::write_frame(&queue, &VnetHdr::PLAIN, &ethernet(OTHER, GUEST, 0x88b5, &[2; 50])).unwrap();
        assert_eq!(last_bytes(&host, 1), [2]);
    });
}

#[test]
fn a_full_tap_says_so_and_loses_nothing() {
    in_namespace(|| {
        let queue = tap::open("t0").unwrap();
        ip("link set t0 txqueuelen 10");
        quiet("t0");
        let inject = PacketSocket::open_inject("t0", true, MIB).unwrap();
        let frame = |n: u8| ethernet(GUEST, OTHER, 0x88b5, &[n; 50]);
        let mut sent = 0;
        let error = loop {
            match inject.send(&VnetHdr::PLAIN, &frame(sent)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 250, "a ring of 10 took {sent} frames");
        };
        assert!(matches!(error, SendError::Full), "{error}");
        let mut buffer = vec![0; 2048];
        let mut got = Vec::new();
        while let Some((_, frame)) = tap::read_frame(&queue, &mut buffer).unwrap() {
            got.push(*frame.last().unwrap());
        }
        assert_eq!(got, (0..sent).collect::<Vec<_>>());
        inject.send(&VnetHdr::PLAIN, &frame(99)).unwrap();
        assert!(!tap::is_empty(&queue).unwrap());
    });
}

#[test]
fn a_tap_has_one_user_at_a_time() {
    in_namespace(|| {
        // A name that no other test has: descriptors are looked for in the whole process, which may have
        // taps of other namespaces.
        let queue = tap::open("only0").unwrap();
        assert!(matches!(tap::open("only0"), Err(tap::Error::InUse(name)) if name == "only0"));
        let own = tap::borrow_queue(std::process::id(), "only0").unwrap().unwrap();
        quiet("only0");
        let inject = PacketSocket::open_inject("only0", true, MIB).unwrap();
        inject.send(&VnetHdr::PLAIN, &ethernet(GUEST, OTHER, 0x88b5, &[1; 50])).unwrap();
        assert!(!tap::is_empty(&own).unwrap(), "the borrowed descriptor is another queue");
        assert!(tap::borrow_queue(std::process::id(), "t1").unwrap().is_none());
        drop((own, queue, inject));
        // Not persistent: gone with its last descriptor. Another test's thread may just be
        // forking, and its child has ours until it executes another program.
        let exists = || std::path::Path::new("/proc/sys/net/ipv4/conf/only0").exists();
        until(|| !exists());
        let queue = tap::open("only0").unwrap();
        tap::set_persist(&queue, true).unwrap();
        drop(queue);
        assert!(exists());
        assert!(matches!(tap::open("lo"), Err(tap::Error::NotATap(_))));
        for name in ["", "sixteen-letters-", "a/b", "a b", "vm%d", "."] {
            assert!(matches!(tap::open(name), Err(tap::Error::Name(_))), "{name:?}");
        }
    });
}
