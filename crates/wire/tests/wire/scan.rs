//! Scanners and clients.

use std::time::Duration;

use dormouse_types::Timestamp;
use dormouse_wire::{Frame, ScanLimits, Scanners, frame_from_text};
use proptest::prelude::*;

use crate::{MAC_1, build::ip_frame, host_2, ip, packets as p};

fn at(millis: u64) -> Timestamp {
    Timestamp(1_000_000_000_000) + Duration::from_millis(millis)
}

fn note(scanners: &mut Scanners, frame: &str, millis: u64) -> bool {
    let bytes = frame_from_text(frame, &host_2()).unwrap();
    scanners.note(&Frame::new(&bytes).unwrap(), at(millis))
}

fn usual() -> Scanners {
    Scanners::new(ScanLimits::default())
}

#[test]
fn a_port_scan_is_one_from_its_tenth_port_until_it_rests() {
    let mut scanners = usual();
    for port in 1..10u16 {
        assert!(!note(&mut scanners, &format!("tcp 10.9.0.9 > :{port}"), u64::from(port)), "port {port}");
    }
    assert!(note(&mut scanners, "tcp 10.9.0.9 > :10", 100));
    assert!(!note(&mut scanners, "tcp 10.9.0.8 > :10", 100), "another source");
    // The same ports again are nothing new: ten seconds after the last new one it is none any more.
    assert!(note(&mut scanners, "tcp 10.9.0.9:7 > :10", 5_000));
    assert!(note(&mut scanners, "icmp 10.9.0.9", 10_099), "whatever it sends");
    assert!(!note(&mut scanners, "tcp 10.9.0.9 > :10", 10_100));
}

#[test]
fn new_ports_keep_a_scanner_one() {
    let mut scanners = usual();
    let mut scans = |port: u16, millis| note(&mut scanners, &format!("udp fd77::9 > :{port}"), millis);
    (1..10).for_each(|port| assert!(!scans(port, 0)));
    for port in 10..100u16 {
        assert!(scans(port, 900 * u64::from(port - 9)), "port {port}");
    }
}

#[test]
fn a_slow_one_is_a_client() {
    let mut scanners = usual();
    for port in 1..200u16 {
        assert!(!note(&mut scanners, &format!("tcp 10.9.0.9 > :{port}"), 1_200 * u64::from(port)));
    }
}

#[test]
fn a_sweep_is_known_by_what_it_asks_for() {
    let mut scanners = usual();
    let mut asks =
        |last: u8, millis| note(&mut scanners, &format!("arp who-has 10.9.0.{last} tell 10.9.0.200"), millis);
    for last in 1..64 {
        assert!(!asks(last, 0) && !asks(last, 10), "machine {last}, asked for twice");
    }
    assert!(asks(64, 20));
    assert!(note(&mut scanners, "tcp 10.9.0.200 > :22", 30), "its first SYN");
    let mut scanners = usual();
    for last in 1..64 {
        assert!(!note(&mut scanners, &format!("tcp 10.9.0.9 > 10.9.0.{last}:22"), 0), "machine {last}");
    }
    assert!(note(&mut scanners, "icmp 10.9.0.9 > 10.9.0.64", 0));
}

/// A TCP segment of 20 octets from `source` to the machine of that number.
fn segment(source: &str, machine: u16, (from, to): (u16, u16), seq: u32, flags: u8) -> Vec<u8> {
    let mut tcp = [from.to_be_bytes(), to.to_be_bytes()].concat();
    tcp.extend(seq.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    let [high, low] = machine.to_be_bytes();
    let dst = std::net::Ipv4Addr::new(10, 8, high, low);
    ip_frame((MAC_1, host_2().mac), ip(source), dst.into(), 6, &tcp)
}

const SYN: u8 = 2;
const ACK: u8 = 0x10;

fn scans(scanners: &mut Scanners, bytes: &[u8], millis: u64) -> bool {
    scanners.note(&Frame::new(bytes).unwrap(), at(millis))
}

/// When TCP sends its SYN, in milliseconds (RFC 6298).
const SYNS: [u64; 5] = [0, 1000, 3000, 7000, 15_000];

/// The milliseconds after which each of `machines` was first reached by one who connects to all at once.
fn reached(machines: u16, limits: ScanLimits) -> Vec<u64> {
    let mut scanners = Scanners::new(limits);
    let mut reached = vec![u64::MAX; machines.into()];
    for millis in SYNS {
        for machine in 0..machines {
            // The clients' ports and first numbers; a millisecond between them.
            let (from, seq) = (40_000 + machine, 0x1234_5678 ^ u32::from(machine) << 12);
            let bytes = segment("10.9.0.9", machine, (from, 22), seq, SYN);
            if !scans(&mut scanners, &bytes, millis + u64::from(machine)) {
                let first = &mut reached[usize::from(machine)];
                *first = millis.min(*first);
            }
        }
    }
    reached
}

#[test]
fn one_client_of_many_machines_reaches_all_by_its_second_syn() {
    for machines in [50, 100, 200, 500] {
        let reached = reached(machines, ScanLimits::default());
        let (at_once, later) = reached.split_at(reached.len().min(63));
        assert!(at_once.iter().all(|millis| *millis == 0), "{machines}: {reached:?}");
        assert!(later.iter().all(|millis| *millis == 1000), "{machines}: {reached:?}");
    }
    // More than can be remembered wait one retransmission longer, and none for ever.
    assert!(reached(1000, ScanLimits::default()).iter().all(|millis| *millis <= 3000));
}

#[test]
fn ten_services_through_one_router_are_reached_by_the_second_syn() {
    let mut scanners = usual();
    let syns = |scanners: &mut Scanners, millis| {
        let syn = |port: u16| segment("10.9.0.9", 2, (50_000 + port, port), 7, SYN);
        (10..=30).filter(|port| scans(scanners, &syn(*port), millis)).count()
    };
    (1..10).for_each(|port| assert!(!scans(&mut scanners, &segment("10.9.0.9", 2, (1, port), 7, SYN), 0)));
    assert_eq!(syns(&mut scanners, 0), 21);
    assert_eq!(syns(&mut scanners, 200), 21, "so soon TCP does not try again");
    assert_eq!(syns(&mut scanners, 1000), 0);
}

/// As nmap does it: from the next port, with another sequence number, a second later.
#[test]
fn a_scanner_that_tries_again_is_one() {
    for flags in [SYN, ACK, SYN | ACK, 0, 0x29] {
        let mut scanners = usual();
        let mut caught = 0;
        for tryno in 0..2u16 {
            for port in 1..=1000 {
                let seq = u32::from(tryno) << 16 | 9;
                let bytes = segment("10.9.0.9", 2, (40_000 + tryno, port), seq, flags);
                let millis = u64::from(tryno) * 1000 + u64::from(port) / 2;
                caught += u32::from(scans(&mut scanners, &bytes, millis));
            }
        }
        assert_eq!(caught, 1991, "{flags}");
    }
}

#[test]
fn a_frame_that_was_noted_is_not_noted_again() {
    let mut scanners = usual();
    (1..=10).for_each(|port| _ = note(&mut scanners, &format!("udp 10.9.0.9 > :{port}"), 0));
    let bytes = segment("10.9.0.9", 2, (40_000, 22), 7, SYN);
    let frame = Frame::new(&bytes).unwrap();
    assert!(scanners.note(&frame, at(100)));
    assert!(scanners.knows(&frame, at(1500)), "what is held is no retransmission of itself");
    assert!(!scanners.knows(&frame, at(10_100)));
    assert!(!scanners.note(&frame, at(1500)));
}

#[test]
fn solicitations_count_and_duplicate_checks_do_not() {
    let limits = ScanLimits { machines: 1, ..ScanLimits::default() };
    let scans =
        |packet: &p::Packet| Scanners::new(limits.clone()).note(&Frame::new(&packet.bytes()).unwrap(), at(0));
    assert!(scans(&p::NS) && scans(&p::NS_UNICAST) && scans(&p::ARP_REQUEST) && scans(&p::ARP_STILL_THERE));
    assert!(!scans(&p::DAD) && !scans(&p::NA) && !scans(&p::ARP_REPLY) && !scans(&p::MLD_REPORT));
}

#[test]
fn all_but_ends_of_connections_counts() {
    let limits = ScanLimits { ports: 1, machines: 1, ..ScanLimits::default() };
    let scans = |frame: &str| note(&mut Scanners::new(limits.clone()), frame, 0);
    for flags in ["flags SYN", "[none]", "flags FIN", "flags SYN,ACK", "flags ACK", "flags data"] {
        assert!(scans(&format!("tcp 10.9.0.9 > :1 {flags}")), "{flags}");
    }
    assert!(scans("sctp 10.9.0.9 > :1") && scans("udp 10.9.0.9 > :1") && scans("icmp 10.9.0.9"));
    for flags in ["FIN,ACK", "RST", "RST,ACK"] {
        assert!(!scans(&format!("tcp 10.9.0.9 > :1 flags {flags}")), "{flags}");
    }
    assert!(!scans("magic"));
    let mut scanners = Scanners::new(limits.clone());
    assert!(!scanners.note(&Frame::new(&p::LATER_FRAGMENT.bytes()).unwrap(), at(0)));
    // A desktop announces itself to groups at many ports.
    let mut group = p::UDP.bytes();
    group[..6].copy_from_slice(&[0xff; 6]);
    assert!(!scanners.note(&Frame::new(&group).unwrap(), at(0)));
    // Protocols without ports count as one each, and messages of ICMP by their machines.
    let other = |protocol, machine: &str| {
        ip_frame((MAC_1, host_2().mac), ip("10.9.0.9"), ip(machine), protocol, &[13; 8])
    };
    let mut scanners = usual();
    let tries = (100..110).map(|protocol| other(protocol, "10.9.0.2"));
    assert_eq!(tries.filter(|bytes| scanners.note(&Frame::new(bytes).unwrap(), at(0))).count(), 1);
    let mut scanners = usual();
    let tries = (1..=64).map(|last| other(1, &format!("10.9.0.{last}")));
    assert_eq!(tries.filter(|bytes| scanners.note(&Frame::new(bytes).unwrap(), at(0))).count(), 1);
}

#[test]
fn some_are_trusted_and_limits_of_zero_count_nothing() {
    let trusted = vec!["10.9.0.0/30".parse().unwrap()];
    let mut scanners = Scanners::new(ScanLimits { ports: 1, trusted, ..ScanLimits::default() });
    assert!(!note(&mut scanners, "tcp 10.9.0.3 > :1", 0) && note(&mut scanners, "tcp 10.9.0.4 > :1", 0));
    let mut scanners = Scanners::new(ScanLimits { ports: 0, machines: 0, ..ScanLimits::default() });
    assert!((1..2000).all(|port| !note(&mut scanners, &format!("tcp 10.9.0.9 > :{port}"), 0)));
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_a_scanner_for_long() {
    let mut scanners = usual();
    let mut scans = |port| note(&mut scanners, &format!("tcp 10.9.0.9 > :{port}"), 3_600_000);
    assert_eq!((1..=10).map(&mut scans).filter(|scans| *scans).count(), 1);
    assert!(!note(&mut scanners, "tcp 10.9.0.9 > :10", 0));
}

#[test]
fn any_number_of_sources_takes_bounded_room_and_hides_no_scanner_among_others() {
    let mut scanners = usual();
    let mut caught = false;
    for n in 0..20_000u32 {
        let source = std::net::Ipv4Addr::from(0x0a10_0000 + n);
        let bytes =
            ip_frame((MAC_1, host_2().mac), source.into(), ip("10.9.0.2"), 17, &[0, 1, 0, 9, 0, 8, 0, 0]);
        assert!(!scanners.note(&Frame::new(&bytes).unwrap(), at(u64::from(n))));
        if n % 100 == 0 {
            caught |= note(&mut scanners, &format!("tcp 10.9.0.9 > :{}", 1 + n / 100), u64::from(n));
        }
    }
    assert!(caught);
}

proptest! {
    /// Whoever tries fewer different ports and machines than the limits, ever, is no scanner, whatever the times.
    #[test]
    fn a_client_that_repeats_itself_is_never_a_scanner(
        tries in prop::collection::vec((1u16..10, 1u8..64, 0u64..3000), 1..300),
    ) {
        let mut scanners = usual();
        let mut now = 0;
        for (port, last, gap) in tries {
            now += gap;
            let frame = format!("tcp 10.9.0.9 > 10.9.0.{last}:{port}");
            prop_assert!(!note(&mut scanners, &frame, now));
        }
    }

    /// Limits are reached exactly: by as many different ports within the time.
    #[test]
    fn limits_are_exact(limit in 1u32..40, gap in 0u64..400) {
        let mut scanners = Scanners::new(ScanLimits { ports: limit, ..ScanLimits::default() });
        let fits = gap * u64::from(limit - 1) < 10_000;
        for n in 1..=limit {
            let scans = note(&mut scanners, &format!("udp 10.9.0.9 > :{n}"), gap * u64::from(n));
            prop_assert_eq!(scans, n == limit && fits, "port {} of {}", n, limit);
        }
    }

    /// Whoever sends a segment again as TCP does wakes by the second retransmission, whatever it tried before.
    #[test]
    fn tcp_gets_through(tried in prop::collection::vec((any::<u16>(), 0u16..400), 0..400), seq: u32, to: u16) {
        let mut scanners = usual();
        for (port, machine) in tried {
            scans(&mut scanners, &segment("10.9.0.9", machine, (1, port), 1, SYN), 0);
        }
        let syn = segment("10.9.0.9", 5, (2, to), seq, SYN);
        prop_assert!(SYNS[..3].iter().any(|millis| !scans(&mut scanners, &syn, *millis)));
    }

    /// However often a scanner tries, each time with another segment, it is one from the limit on.
    #[test]
    fn no_two_tries_of_a_scanner_are_one(gaps in prop::collection::vec(0u64..400, 10..200)) {
        let mut scanners = usual();
        let mut now = 0;
        for (n, gap) in (0u16..).zip(gaps) {
            // Ports come again, numbers do not.
            let bytes = segment("10.9.0.9", 2, (1, n % 150), n.into(), SYN);
            prop_assert_eq!(scans(&mut scanners, &bytes, now), n >= 9);
            now += gap.min(9_999 / 10);
        }
    }
}
