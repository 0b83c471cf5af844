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
    assert!(note(&mut scanners, "tcp 10.9.0.9 > :10", 5_000));
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
    for last in 1..32 {
        assert!(!asks(last, 0) && !asks(last, 10), "machine {last}, asked for twice");
    }
    assert!(asks(32, 20));
    assert!(note(&mut scanners, "tcp 10.9.0.200 > :22", 30), "its first SYN");
    let mut scanners = usual();
    for last in 1..32 {
        assert!(!note(&mut scanners, &format!("tcp 10.9.0.9 > 10.9.0.{last}:22"), 0), "machine {last}");
    }
    assert!(note(&mut scanners, "icmp 10.9.0.9 > 10.9.0.32", 0));
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
fn only_beginnings_count() {
    let limits = ScanLimits { ports: 1, machines: 1, ..ScanLimits::default() };
    let scans = |frame: &str| note(&mut Scanners::new(limits.clone()), frame, 0);
    for frame in ["tcp 10.9.0.9 > :1 flags SYN", "tcp 10.9.0.9 > :1 [none]", "tcp 10.9.0.9 > :1 flags FIN"] {
        assert!(scans(frame), "{frame}");
    }
    assert!(scans("sctp 10.9.0.9 > :1") && scans("udp 10.9.0.9 > :1") && scans("icmp 10.9.0.9"));
    for frame in ["SYN,ACK", "ACK", "data", "FIN,ACK", "RST", "RST,ACK"] {
        assert!(!scans(&format!("tcp 10.9.0.9 > :1 flags {frame}")), "{frame}");
    }
    assert!(!scans("magic"));
    let mut scanners = Scanners::new(limits.clone());
    assert!(!scanners.note(&Frame::new(&p::PONG.bytes()).unwrap(), at(0)));
    assert!(!scanners.note(&Frame::new(&p::PORT_UNREACHABLE.bytes()).unwrap(), at(0)));
    assert!(!scanners.note(&Frame::new(&p::LATER_FRAGMENT.bytes()).unwrap(), at(0)));
    // A desktop announces itself to groups at many ports.
    let mut group = p::UDP.bytes();
    group[..6].copy_from_slice(&[0xff; 6]);
    assert!(!scanners.note(&Frame::new(&group).unwrap(), at(0)));
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
        tries in prop::collection::vec((1u16..10, 1u8..32, 0u64..3000), 1..300),
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
}
