//! Ignore lists, sources, rates and connections.

use std::time::Duration;

use dormouse_types::{Matcher, Timestamp, WakeRule};
use dormouse_wire::{Flow, Frame, Persona, Rules, Verdict, fits, frame_from_text};
use proptest::prelude::*;

use crate::{MAC_1, build::ethernet, host_2};

fn rules(wake: &[&str], ignore: &[&str]) -> Rules {
    let wake: Vec<WakeRule> = wake.iter().map(|rule| rule.parse().unwrap()).collect();
    let ignore: Vec<Matcher> = ignore.iter().map(|entry| entry.parse().unwrap()).collect();
    Rules::new(wake.into(), ignore.into())
}

fn at(millis: u64) -> Timestamp {
    Timestamp(1_000_000_000_000) + Duration::from_millis(millis)
}

/// What `rules` say of the described frame to host 2.
fn judge(rules: &mut Rules, frame: &str, persona: &Persona, now: Timestamp) -> Verdict {
    let bytes = frame_from_text(frame, &host_2()).unwrap();
    rules.judge(&Frame::new(&bytes).unwrap(), &host_2(), persona, now)
}

fn verdict(wake: &[&str], ignore: &[&str], frame: &str) -> Verdict {
    judge(&mut rules(wake, ignore), frame, &Persona::default(), at(0))
}

#[test]
fn the_first_rule_decides_and_the_ignore_list_comes_before() {
    let wake = ["udp:53", "tcp:22", "any-unicast"];
    assert_eq!(verdict(&wake, &[], "tcp 10.9.0.1 > :22"), Verdict::Wake(1));
    assert_eq!(verdict(&wake, &[], "tcp 10.9.0.1 > :80"), Verdict::Wake(2));
    assert_eq!(verdict(&wake[..2], &[], "tcp 10.9.0.1 > :80"), Verdict::Unnamed);
    assert_eq!(verdict(&wake, &["udp", "tcp:22"], "tcp 10.9.0.1 > :22"), Verdict::Ignore(1));
    assert_eq!(verdict(&wake, &["any"], "arp who-has 10.9.0.9 tell 10.9.0.1"), Verdict::Ignore(0));
    assert_eq!(verdict(&["magic"], &["magic"], "magic"), Verdict::Ignore(0));
}

#[test]
fn sources_are_those_of_ip_and_of_arp() {
    let from = |source: &str| format!("tcp {source} > :22");
    let wake = ["tcp:22 from 10.0.0.0/8,fd77::/64"];
    for (source, woken) in [("10.1.2.3", true), ("192.0.2.1", false), ("fd77::9", true), ("fd78::9", false)] {
        assert_eq!(verdict(&wake, &[], &from(source)) == Verdict::Wake(0), woken, "{source}");
    }
    let arp = "arp who-has 10.9.0.9 tell 10.9.0.1";
    assert_eq!(verdict(&[], &["any from 10.9.0.1"], arp), Verdict::Ignore(0));
    assert_eq!(verdict(&[], &["any from 10.9.0.9"], arp), Verdict::Unnamed);
    // No IP source: named by a rule without networks only.
    assert_eq!(verdict(&["magic from 0.0.0.0/0,::/0"], &[], "magic"), Verdict::Unnamed);
    assert_eq!(verdict(&["magic"], &[], "magic"), Verdict::Wake(0));
}

#[test]
fn the_end_of_a_connection_is_kept_and_does_not_wake() {
    for flags in ["FIN", "FIN,ACK", "RST", "RST,ACK"] {
        let frame = format!("tcp 10.9.0.1:5555 > :22 flags {flags}");
        for rule in ["tcp:22", "tcp", "any-unicast", "established"] {
            assert_eq!(verdict(&[rule], &[], &frame), Verdict::Unnamed, "{flags} by {rule}");
        }
        assert_eq!(verdict(&["tcp"], &["tcp:22"], &frame), Verdict::Ignore(0), "{flags}");
    }
    for flags in ["SYN", "ACK", "FIN,data", "SYN,FIN"] {
        let frame = format!("tcp 10.9.0.1:5555 > :22 flags {flags}");
        assert_eq!(verdict(&["tcp:22"], &[], &frame), Verdict::Wake(0), "{flags}");
        assert_eq!(verdict(&["any-unicast"], &[], &frame), Verdict::Wake(0), "{flags}");
    }
}

#[test]
fn protocols_have_their_words() {
    for (word, frame) in [
        ("tcp", "tcp fd77::1 > :9"),
        ("udp", "udp 10.9.0.1 > :9"),
        ("sctp", "sctp 10.9.0.1 > :36412"),
        ("sctp:36412", "sctp 10.9.0.1 > :36412"),
        ("icmp", "icmp 10.9.0.1"),
        ("icmp", "icmp fd77::1"),
        ("magic", "magic"),
        ("ethertype:0x0842", "magic"),
    ] {
        for rule in ["tcp", "udp", "sctp", "icmp", "magic"] {
            let expected =
                if rule == word.split(':').next().unwrap() { Verdict::Wake(0) } else { Verdict::Unnamed };
            if !word.starts_with("ethertype") {
                assert_eq!(verdict(&[rule], &[], frame), expected, "{frame} by {rule}");
            }
        }
        assert_eq!(verdict(&[word], &[], frame), Verdict::Wake(0), "{frame} by {word}");
    }
    let gre = [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 47, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2][..], &[0; 8]].concat();
    let gre = ethernet(host_2().mac, MAC_1, &[], 0x0800, &gre);
    let judged = rules(&["ip:50", "ip:47"], &[]).judge(
        &Frame::new(&gre).unwrap(),
        &host_2(),
        &Persona::default(),
        at(0),
    );
    assert_eq!(judged, Verdict::Wake(1));
}

#[test]
fn groups_fit_lists_and_wake_by_type_and_magic_only() {
    let mut udp = frame_from_text("udp 10.9.0.1 > 10.9.0.255:5353", &host_2()).unwrap();
    udp[..6].copy_from_slice(&[0xff; 6]);
    let frame = Frame::new(&udp).unwrap();
    let persona = Persona::default();
    assert!(fits(&"udp:5353".parse().unwrap(), &frame, &host_2(), &persona));
    assert!(!fits(&"any-unicast".parse().unwrap(), &frame, &host_2(), &persona));
    let judge = |wake: &[&str]| rules(wake, &[]).judge(&frame, &host_2(), &persona, at(0));
    assert_eq!(judge(&["udp:5353", "any-unicast"]), Verdict::Unnamed);
    assert_eq!(judge(&["ethertype:0x0800"]), Verdict::Wake(0));
    udp[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
    let frame = Frame::new(&udp).unwrap();
    assert!(!fits(&"any".parse().unwrap(), &frame, &host_2(), &persona), "for another machine");
}

#[test]
fn data_on_a_connection_of_the_machine_wakes() {
    let flow = Flow {
        local: "10.9.0.2:22".parse().unwrap(),
        remote: "10.9.0.1:5555".parse().unwrap(),
        snd_nxt: 1,
        rcv_nxt: 1,
        window: 100,
        tsval: None,
        heard: at(0),
    };
    let persona = Persona { flows: vec![flow], ..Persona::default() };
    let judged = |frame: &str| judge(&mut rules(&["established"], &[]), frame, &persona, at(0));
    assert_eq!(judged("tcp 10.9.0.1:5555 > :22 flags data"), Verdict::Wake(0));
    assert_eq!(judged("tcp 10.9.0.1:5555 > :22 flags ACK"), Verdict::Wake(0), "none took it: it brings news");
    for other in [
        "tcp 10.9.0.1:5555 > :22 flags FIN,ACK",
        "tcp 10.9.0.1:5555 > :22 flags SYN",
        "tcp 10.9.0.1:5555 > :22 flags RST,data",
        "tcp 10.9.0.1:5556 > :22 flags data",
        "tcp 10.9.0.9:5555 > :22 flags data",
        "tcp 10.9.0.1:5555 > :23 flags data",
        "udp 10.9.0.1:5555 > :22",
    ] {
        assert_eq!(judged(other), Verdict::Unnamed, "{other}");
    }
}

#[test]
fn a_rate_is_reached_within_its_time() {
    let mut rules = rules(&["tcp:22 rate 3/10s", "any-unicast"], &[]);
    let mut judged = |millis| judge(&mut rules, "tcp 10.9.0.1 > :22", &Persona::default(), at(millis));
    let not_yet = |seen| Verdict::NotYet { rule: 0, seen, of: 3 };
    assert_eq!(judged(0), not_yet(1));
    assert_eq!(judged(9_000), not_yet(2));
    assert_eq!(judged(10_000), not_yet(2), "the first one is ten seconds old");
    assert_eq!(judged(18_999), Verdict::Wake(0));
    assert_eq!(judged(28_998), not_yet(2));
    // The clock is set back: what was noted later no longer counts.
    assert_eq!(judged(0), not_yet(1));
}

#[test]
fn rates_count_each_rule_by_itself() {
    let mut rules = rules(&["tcp:22 rate 2/10s", "tcp:80 rate 2/10s"], &[]);
    let mut judged =
        |port: u16| judge(&mut rules, &format!("tcp 10.9.0.1 > :{port}"), &Persona::default(), at(0));
    assert_eq!(judged(22), Verdict::NotYet { rule: 0, seen: 1, of: 2 });
    assert_eq!(judged(80), Verdict::NotYet { rule: 1, seen: 1, of: 2 });
    assert_eq!(judged(443), Verdict::Unnamed);
    assert_eq!(judged(80), Verdict::Wake(1));
    assert_eq!(judged(22), Verdict::Wake(0));
}

proptest! {
    /// A rate says yes exactly when that many frames came within its time, this one included.
    #[test]
    fn rates_agree_with_counting(count in 1u16..6, within in 1u64..2000, gaps in prop::collection::vec(0u64..1500, 1..60)) {
        let rule = format!("udp:9 rate {count}/{within}ms");
        let mut rules = rules(&[&rule], &[]);
        let mut times: Vec<u64> = Vec::new();
        for gap in gaps {
            let now = times.last().copied().unwrap_or_default() + gap;
            times.push(now);
            let recent = times.iter().filter(|time| now - **time < within).count();
            let verdict = judge(&mut rules, "udp 10.9.0.1 > :9", &Persona::default(), at(now));
            if recent >= usize::from(count) {
                prop_assert_eq!(verdict, Verdict::Wake(0));
            } else {
                let seen = u32::try_from(recent).unwrap();
                prop_assert_eq!(verdict, Verdict::NotYet { rule: 0, seen, of: u32::from(count) });
            }
        }
    }
}
