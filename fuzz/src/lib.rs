//! What the targets share: how the fuzzer's octets become frames and times, and who sleeps.
//!
//! An input is a sequence of steps: an octet that says what is done, an octet of time, two octets
//! of length, and the frame. Of a frame that begins with an octet below [`SHAPES`] only the payload
//! is the fuzzer's: the headers that lead to the parser behind them are put in front.

use std::{net::IpAddr, time::Duration};

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Deed, FlowTable, Frame, Identity, Outcome, Persona, Policy, Proxy, Way, summary};

/// Host 2 of the recorded packets: the sleeper.
pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
/// Host 1 of the recorded packets: everybody else.
pub const PEER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// Who sleeps.
pub fn sleeper() -> Identity {
    let addresses = ["10.9.0.2", "fd77::2", "fe80::5054:ff:fe00:2"];
    Identity { mac: MAC, addresses: addresses.map(|text| text.parse().unwrap()).into(), configured: false }
}

/// One thing that happens.
pub struct Step {
    /// What is done; its meaning is the target's.
    pub what: u8,
    /// When.
    pub now: Timestamp,
    /// A frame, or any octets.
    pub frame: Vec<u8>,
    /// The octets that it was made of.
    octets: Vec<u8>,
}

/// The most steps that are made of an input.
const MAX_STEPS: usize = 64;

/// The steps of an input, whatever its octets.
pub fn steps(input: &[u8]) -> impl Iterator<Item = Step> {
    let (mut rest, mut now) = (input, Timestamp(1_700_000_000_000_000_000));
    std::iter::from_fn(move || {
        let [what, time, high, low, tail @ ..] = rest else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (frame, tail) = tail.split_at(len);
        rest = tail;
        now = after(now, *time);
        Some(Step { what: *what, now, frame: shaped(frame), octets: frame.to_vec() })
    })
    .take(MAX_STEPS)
}

/// A step for [`steps`] to read.
pub fn encode(what: u8, time: u8, frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).unwrap();
    [&[what, time][..], &len.to_be_bytes(), frame].concat()
}

/// From nothing to years, and a step back.
fn after(now: Timestamp, time: u8) -> Timestamp {
    match time {
        0 => now,
        255 => Timestamp(now.0.saturating_sub(60_000_000_000)),
        exponent => now + Duration::from_nanos(1 << (exponent % 60)),
    }
}

/// Frames that one call may bring: a report for each group, and a few more.
const MAX_DEEDS: usize = Persona::MAX_GROUPS + 20;

fn check(sent: &[u8]) {
    let frame = Frame::new(sent).expect("a whole frame");
    assert_eq!(frame.src(), MAC, "{}", summary(sent));
    assert_ne!(frame.dst(), MAC, "{}", summary(sent));
    assert!(sent.len() < 10_000);
}

/// The life of a machine: first it runs and is learned from, then it sleeps and is stood in for.
pub fn live(steps: impl Iterator<Item = Step>) {
    let (mut persona, mut flows, mut asleep) = (Persona::default(), FlowTable::default(), None::<Proxy>);
    for step in steps {
        let Some(frame) = Frame::new(&step.frame) else { continue };
        if step.what % 4 < 2 && asleep.is_none() {
            let way = if step.what % 4 == 0 { Way::Sent } else { Way::Received };
            persona.learn(&frame, way, MAC, step.now);
            flows.note(&frame, step.frame.len(), MAC, step.now);
            continue;
        }
        let proxy = asleep.get_or_insert_with(|| {
            persona.flows = flows.established();
            Proxy::new(sleeper(), persona.clone(), Policy::default(), step.now)
        });
        let (by, outcome) = proxy.take(&frame, step.now);
        assert_eq!(by.is_empty(), outcome == Outcome::Pass);
        if let Outcome::Reply(reply) = outcome {
            check(&reply);
        }
        if step.what % 4 == 3 || proxy.deadline().is_some_and(|deadline| deadline <= step.now) {
            let now = proxy.deadline().map_or(step.now, |deadline| deadline.max(step.now));
            let deeds = proxy.due(now);
            assert!(deeds.len() <= MAX_DEEDS);
            for deed in deeds {
                if let Deed::Send(_, frame) = deed {
                    check(&frame);
                }
            }
            assert!(proxy.deadline().is_none_or(|deadline| deadline > now), "a deadline that does not pass");
        }
    }
}

/// A [`live`] of nothing but frames with these headers, which only the first octet chooses among.
pub fn live_behind(input: &[u8], shapes: &[u8]) {
    live(steps(input).map(|step| {
        let shape = shapes[usize::from(step.what / 4) % shapes.len()];
        Step { frame: shaped(&[&[shape][..], &step.octets].concat()), ..step }
    }));
}

/// How many kinds of headers are put in front of a payload.
pub const SHAPES: u8 = 24;

/// The frame that some octets stand for.
fn shaped(octets: &[u8]) -> Vec<u8> {
    let [shape @ 0..SHAPES, payload @ ..] = octets else { return octets.to_vec() };
    let own: [IpAddr; 2] = ["10.9.0.2", "fd77::2"].map(|text| text.parse().unwrap());
    let peer: [IpAddr; 2] = ["10.9.0.1", "fd77::1"].map(|text| text.parse().unwrap());
    let group: [IpAddr; 2] = ["224.0.0.251", "ff02::fb"].map(|text| text.parse().unwrap());
    // By pairs: IPv4 and IPv6.
    let v6 = usize::from(shape % 2);
    let from_peer = |protocol, port: u16| {
        let ports = [port.to_be_bytes(), port.to_be_bytes()];
        packet((PEER, MAC), (peer[v6], own[v6]), protocol, ports, payload)
    };
    let to_group = |(src, ip): (MacAddr, IpAddr), protocol, port: u16| {
        let ports = [port.to_be_bytes(), port.to_be_bytes()];
        packet((src, MacAddr([0x33, 0x33, 0, 0, 0, 1])), (ip, group[v6]), protocol, ports, payload)
    };
    let icmp = if v6 == 0 { 1 } else { 58 };
    match shape / 2 {
        0 => from_peer(6, 0),
        1 => packet((MAC, PEER), (own[v6], peer[v6]), 6, [[0; 2]; 2], payload),
        2 => from_peer(icmp, 0),
        3 => to_group((PEER, peer[v6]), if v6 == 0 { 2 } else { 58 }, 0),
        4 => to_group((MAC, own[v6]), if v6 == 0 { 2 } else { 58 }, 0),
        5 => from_peer(17, 68),
        6 => packet((MAC, PEER), (own[v6], peer[v6]), 17, [[0, 68], [0, 67]], payload),
        7 => to_group((PEER, peer[v6]), 17, 5353),
        8 => to_group((MAC, own[v6]), 17, 5353),
        9 => to_group((PEER, peer[v6]), 17, 5355),
        10 => to_group((PEER, peer[v6]), 17, 137),
        _ => to_group((MAC, own[v6]), 17, 137),
    }
}

/// An IP packet in Ethernet. UDP gets its header; of all else the payload is all that follows IP.
/// Checksums are left out: in a fuzzer's build they are taken to be right.
fn packet(
    macs: (MacAddr, MacAddr),
    ips: (IpAddr, IpAddr),
    protocol: u8,
    ports: [[u8; 2]; 2],
    payload: &[u8],
) -> Vec<u8> {
    let mut inner = Vec::new();
    if protocol == 17 {
        let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
        inner.extend([ports[0], ports[1], len, [0; 2]].concat());
    }
    inner.extend(payload);
    let hop_limit =
        if matches!(protocol, 2 | 58) && payload.first() >= Some(&130) || protocol == 2 { 1 } else { 64 };
    let len = |header: usize| u16::try_from(header + inner.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = [macs.1.0, macs.0.0].concat();
    match ips {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = len(20);
            bytes.extend([0x08, 0x00, 0x45, 0, high, low, 0, 0, 0, 0, hop_limit, protocol, 0, 0]);
            bytes.extend([src.octets(), dst.octets()].concat());
        }
        (src, dst) => {
            let [high, low] = len(0);
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, hop_limit]);
            for ip in [src, dst] {
                if let IpAddr::V6(ip) = ip {
                    bytes.extend(ip.octets());
                }
            }
        }
    }
    bytes.extend(inner);
    bytes
}
