//! Who gets a group frame, and at what cost.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use dormouse_sys::VnetHdr;
use dormouse_wire::{Identity, MdnsRecord, Names, Persona, Policy};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    Limits, Mode,
    handover::Plain,
    judge::Manners,
    presence::Waker,
    queue::{Budget, ReplayQueue},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn mac(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}

/// The name `LABEL.local` as in a packet.
fn name(label: &str) -> Vec<u8> {
    let len = u8::try_from(label.len()).unwrap();
    [&[len][..], label.as_bytes(), b"\x05local\0"].concat()
}

fn record(label: &str, kind: u16, unique: bool) -> MdnsRecord {
    MdnsRecord { name: name(label), kind, unique, ttl: 120, data: vec![0; 4] }
}

/// A host name of its own with seven records, and a service that all have.
fn persona(number: u16) -> Persona {
    let host = format!("host{number}");
    let mut mdns: Vec<_> = [1, 28, 16, 13, 33, 12, 99].map(|kind| record(&host, kind, true)).into();
    mdns.push(record("everybody", 12, false));
    Persona { names: Names { mdns, ..Names::default() }, ..Persona::default() }
}

/// Sleepers that are numbered from 1 on.
fn asleep(sleepers: u16) -> (Table, UnboundedReceiver<Notice>) {
    let (notices, told) = unbounded_channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let scanners = Scanners::new(Default::default());
    let mut table = Table::new(Box::new(Plain), scanners, notices, Asking::new(bell));
    let manners = Arc::new(Manners {
        name: "web".parse().unwrap(),
        wake: ["any-unicast".parse().unwrap()].into(),
        ignore: [].into(),
        services: [].into(),
        programs: vec![],
        policy: Policy::default(),
        secret: [0; 16],
    });
    for number in 1..=sleepers {
        let [high, low] = number.to_be_bytes();
        let who = Identity { mac: mac(number), addresses: vec![[10, 9, high, low].into()], configured: true };
        let judge = WireJudge::new(who, persona(number), manners.clone(), 1500, NOW);
        let queue = ReplayQueue::new(Budget::alone(Limits { frames: 100, bytes: 1 << 20 }));
        let mut presence = Presence::new(Mode::Holding, judge, queue, Waker::default());
        presence.stand_in(None, vec![], NOW, None);
        table.insert(mac(number), Entry::new(("web".parse().unwrap(), None), presence, Losses::default()));
        table.reindex(mac(number));
    }
    (table, told)
}

/// A message to the group of mDNS from another host.
fn mdns(flags: u16, counts: [u16; 4], body: &[u8]) -> Vec<u8> {
    let mut message = [0, flags].map(u16::to_be_bytes).concat();
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(body);
    let len = |more: usize| u16::try_from(message.len() + more).unwrap().to_be_bytes();
    let mut frame = vec![1, 0, 0x5e, 0, 0, 0xfb, 2, 1, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend(len(28));
    frame.extend([0, 0, 0, 0, 255, 17, 0, 0]);
    frame.extend(Ipv4Addr::new(10, 9, 255, 1).octets());
    frame.extend(Ipv4Addr::new(224, 0, 0, 251).octets());
    frame.extend([5353, 5353].map(u16::to_be_bytes).concat());
    frame.extend(len(8));
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

fn question(owner: &[u8], kind: u8) -> Vec<u8> {
    [owner, &[0, kind, 0, 1]].concat()
}

fn deliver(table: &mut Table, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    let header = VnetHdr::PLAIN;
    let frame =
        Frame { header, bytes, vlan: None, outgoing: false, truncated: false, mark: 0, length: bytes.len() };
    table.deliver(&frame, NOW, &mut replies);
    replies
}

#[test]
fn a_question_for_a_name_is_put_to_those_who_have_it() {
    let (mut table, _told) = asleep(20);
    let replies = deliver(&mut table, &mdns(0, [1, 0, 0, 0], &question(&name("HOST7"), 1)));
    assert_eq!(replies.len(), 1);
    assert_eq!(MacAddr::from_slice(&replies[0][6..]), Some(mac(7)));
    for number in 1..=20 {
        let own = number == 7;
        assert_eq!(table.drops(mac(number)).of(Reason::Filtered), u64::from(!own), "{number}");
        let entry = table.get(mac(number)).unwrap();
        assert_eq!(entry.presence.answered().get("mdns").copied(), own.then_some(1));
        assert_eq!(entry.presence.held().len(), 0);
    }
    // What is shared they all answer, in their own time.
    deliver(&mut table, &mdns(0, [1, 0, 0, 0], &question(&name("everybody"), 12)));
    assert!(table.iter().all(|(_, entry)| entry.presence.deadline().is_some()));
    // What others announce is for everybody, when they wake.
    deliver(&mut table, &mdns(0x8400, [0, 0, 0, 0], &[]));
    assert!(table.iter().all(|(_, entry)| entry.presence.held().len() == 1));
}

/// Says what a group frame costs.
#[test]
#[ignore = "it only measures"]
fn cost_of_a_frame_for_a_thousand_sleepers() {
    let (mut table, _told) = asleep(1000);
    // As many questions as fit a packet, for a long name by pointers.
    let long = [&[&[62][..], &[b'a'; 62]].concat().repeat(3)[..], &[0]].concat();
    let many = |count: u16, owner: &[u8]| {
        let mut body = question(owner, 255);
        (1..count).for_each(|_| body.extend(question(&[0xc0, 12], 255)));
        mdns(0, [count, 0, 0, 0], &body)
    };
    let frames = [
        ("200 questions", many(200, &long)),
        ("32 questions", many(32, &long)),
        ("32 questions for what all have", many(32, &name("everybody"))),
        ("an announcement", mdns(0x8400, [0, 1, 0, 0], &[&name("other")[..], &[0; 10]].concat())),
    ];
    for (what, frame) in frames {
        let start = Instant::now();
        (0..20).for_each(|_| drop(deliver(&mut table, &frame)));
        println!("{what}, {} octets: {:?}", frame.len(), start.elapsed() / 20);
    }
}
