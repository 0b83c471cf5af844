//! What is done with each kind of frame in each mode, and the same for any sequence of them.

use super::*;
use crate::{Limits, queue::Budget};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1);
/// Kinds of frames that [`ByLastOctet`] tells apart, by their last octet.
const KINDS: u8 = 10;
const ANSWER: u8 = 0;
const WAKE: u8 = 1;
const NOTHING: u8 = 2;
const OTHER: u8 = 3;
const ASK: u8 = 4;
const IGNORE: u8 = 5;
const NOT_YET: u8 = 6;
const SERVED: u8 = 7;
const ASK_AND_WAKE: u8 = 8;
const CLOSE: u8 = 9;

/// The frame's last octet says what it is.
#[derive(Debug, Default)]
struct ByLastOctet {
    deadline: Option<Timestamp>,
    spoken_to: u64,
}

impl Judge for ByLastOctet {
    fn judge(&mut self, arrival: &Arrival<'_>, asleep: bool) -> Judgement {
        let frame = arrival.ethernet().to_vec();
        match arrival.ethernet().last() {
            Some(&ANSWER) => Judgement::Answer { by: "test", frames: vec![frame], wake: None },
            Some(&SERVED) if asleep => {
                self.spoken_to += 1;
                Judgement::Answer { by: "service", frames: vec![frame], wake: Some("served".into()) }
            }
            Some(&NOTHING) => Judgement::Nothing,
            Some(&(ASK | ASK_AND_WAKE)) => Judgement::Ask(0),
            _ => self.judge_by_rules(arrival),
        }
    }

    fn judge_by_rules(&mut self, arrival: &Arrival<'_>) -> Judgement {
        let scanner = arrival.frame().is_some_and(|frame| arrival.is_from_scanner(&frame));
        match arrival.ethernet().last() {
            Some(&(WAKE | ASK_AND_WAKE)) if scanner => Judgement::Other(Some(Kind::Scanner)),
            Some(&(WAKE | ASK_AND_WAKE)) => Judgement::Wake(None),
            Some(&IGNORE) => Judgement::Ignore(Kind::Ignored(0)),
            Some(&NOT_YET) => Judgement::Other(Some(Kind::NotYet(0))),
            _ => Judgement::Other(None),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    fn due(&mut self, now: Timestamp) -> Due {
        match self.deadline.take_if(|at| *at <= now) {
            Some(_) => Due { sends: vec![("deed", vec![])], ..Due::default() },
            None => Due::default(),
        }
    }

    fn end(&mut self, _now: Timestamp) -> Vec<Vec<u8>> {
        let spoken_to = std::mem::take(&mut self.spoken_to);
        (0..spoken_to.min(1)).map(|_| vec![]).collect()
    }

    fn is_close(&self, arrival: &Arrival<'_>) -> bool {
        arrival.ethernet().last() == Some(&CLOSE)
    }

    fn describe(&self, ethernet: &[u8]) -> String {
        format!("{ethernet:?}")
    }
}

#[derive(Clone, Debug)]
enum Step {
    Frame { kind: u8, group: bool },
    StandIn,
    Prepare,
    Release,
    Pop,
    Said(u8, prop::sample::Index),
    Due,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..KINDS, any::<bool>()).prop_map(|(kind, group)| Step::Frame { kind, group }),
        2 => Just(Step::StandIn),
        1 => Just(Step::Prepare),
        1 => Just(Step::Release),
        2 => Just(Step::Pop),
        4 => (0_u8..5, any::<prop::sample::Index>()).prop_map(|(said, which)| Step::Said(said, which)),
        1 => Just(Step::Due),
    ]
}

fn packet(kind: u8, group: bool, number: u32) -> Packet {
    let mut frame = vec![u8::from(group); 14];
    frame.extend(number.to_be_bytes());
    frame.push(kind);
    Packet::new(dormouse_sys::VnetHdr::PLAIN, &frame).unwrap()
}

fn presence(frames: u64) -> Presence<ByLastOctet> {
    let queue = ReplayQueue::new(Budget::alone(Limits { frames, bytes: 1 << 20 }));
    Presence::new(Mode::Holding, ByLastOctet::default(), queue, Waker::default())
}

fn take(presence: &mut Presence<ByLastOctet>, packet: &Packet) -> Effect {
    presence.take(&Arrival::again(packet, NOW, None))
}

fn stand_in(presence: &mut Presence<ByLastOctet>, older: Vec<Packet>) -> Effect {
    presence.stand_in(None, older, NOW, None)
}

fn said(which: u8) -> Said {
    match which {
        0 => Said::Reply(vec![vec![]]),
        1 => Said::Wake,
        2 => Said::Ignore,
        3 => Said::Nothing,
        _ => Said::Hold,
    }
}

proptest! {
    #[test]
    fn every_frame_has_one_fate_and_one_who_answers(
        steps in prop::collection::vec(step(), 0..200),
        limit in 0_u64..50,
    ) {
        let mut presence = presence(limit);
        let (mut wakes, mut out, mut came, mut open) = (0, Vec::new(), 0_u32, Vec::new());
        for step in steps {
            let before = presence.mode();
            let effect = match step {
                Step::Frame { kind, group } => {
                    came += 1;
                    take(&mut presence, &packet(kind, group, came))
                }
                Step::StandIn if matches!(before, Mode::Holding | Mode::Standing) => {
                    open.clear();
                    stand_in(&mut presence, vec![])
                }
                Step::Prepare if before == Mode::Standing => { presence.prepare(); Effect::default() }
                Step::Release => {
                    // The last words to those whom it served are no answers.
                    prop_assert!(presence.release(NOW).replies.len() <= 1);
                    Effect::default()
                }
                Step::Pop if before == Mode::Releasing => {
                    out.extend(presence.queue().pop());
                    Effect::default()
                }
                Step::Said(what, which) if !open.is_empty() => {
                    presence.resolve(open.swap_remove(which.index(open.len())), said(what), NOW)
                }
                Step::Due => {
                    presence.judge.deadline = Some(NOW);
                    presence.due(NOW)
                }
                _ => Effect::default(),
            };
            let guest_answers = matches!(presence.mode(), Mode::Holding | Mode::Releasing);
            prop_assert!(!guest_answers || effect.replies.is_empty() && effect.questions.is_empty());
            prop_assert!(effect.wake.is_none() || matches!(presence.mode(), Mode::Holding | Mode::Standing));
            prop_assert_eq!(presence.deadline().is_some_and(|_| guest_answers), false);
            wakes += u32::from(effect.wake.is_some());
            open.extend(effect.questions.iter().map(|question| question.ticket));
            prop_assert!(open.len() <= MAX_TICKETS);
        }
        presence.queue().close_boundary(|_| 0);
        while let Some(packet) = presence.queue().pop() {
            out.push(packet);
        }
        prop_assert!(wakes <= 1);
        let answered: u64 =
            presence.answered().iter().filter(|(by, _)| **by != "deed").map(|(_, frames)| frames).sum();
        let dropped: u64 = presence.queue().drops().iter().map(|(_, frames)| frames).sum();
        prop_assert_eq!(u64::from(came), answered + dropped + out.len() as u64);
        for group in [false, true] {
            let of_kind = out.iter().filter(|p| p.destination().is_multicast() == group);
            let numbers: Vec<_> = of_kind.map(|p| p.ethernet()[14..18].to_vec()).collect();
            prop_assert!(numbers.is_sorted());
        }
    }
}

#[test]
fn what_was_held_is_judged_again() {
    let mut presence = presence(10);
    for kind in [ANSWER, NOTHING, OTHER, IGNORE] {
        let effect = take(&mut presence, &packet(kind, false, 1));
        assert_eq!(effect, Effect { held: true, ..Effect::default() });
    }
    let effect = stand_in(&mut presence, vec![packet(WAKE, false, 0)]);
    assert_eq!(effect.replies.len(), 1);
    assert!(effect.wake.is_some());
    assert_eq!(presence.queue().drops().of(Reason::Filtered), 1);
    assert_eq!(presence.queue().drops().of(Reason::Ignored), 1);
    assert_eq!(presence.queue().pop(), Some(packet(WAKE, false, 0)));
    assert_eq!(presence.queue().pop(), Some(packet(OTHER, false, 1)));
}

#[test]
fn what_the_rules_name_now_wakes_though_it_was_held() {
    let mut presence = presence(10);
    stand_in(&mut presence, vec![]);
    assert_eq!(take(&mut presence, &packet(OTHER, false, 1)).wake, None);
    assert!(stand_in(&mut presence, vec![packet(WAKE, false, 0)]).wake.is_some());
}

#[test]
fn group_frames_after_the_boundary_are_the_bridges() {
    let mut presence = presence(10);
    presence.release(NOW);
    take(&mut presence, &packet(OTHER, true, 1));
    presence.queue().close_boundary(|_| 0);
    take(&mut presence, &packet(OTHER, true, 2));
    take(&mut presence, &packet(OTHER, false, 3));
    let out: Vec<_> = presence.queue().take_all();
    assert_eq!(out, [packet(OTHER, true, 1), packet(OTHER, false, 3)]);
    assert_eq!(presence.held().suppressed(), 1);
}

#[test]
fn an_answerable_frame_undoes_no_sleep_and_a_wanted_one_does_once() {
    let mut presence = presence(10);
    assert_eq!(take(&mut presence, &packet(ANSWER, false, 1)).wake, None);
    assert!(take(&mut presence, &packet(WAKE, false, 2)).wake.is_some());
    assert_eq!(take(&mut presence, &packet(WAKE, false, 3)).wake, None);
}

#[test]
fn what_does_not_wake_is_counted_with_its_reason() {
    let mut presence = presence(10);
    stand_in(&mut presence, vec![]);
    for (kind, number) in [(NOT_YET, 1), (IGNORE, 2), (NOT_YET, 3)] {
        assert_eq!(take(&mut presence, &packet(kind, false, number)).wake, None);
    }
    let seen: Vec<_> = presence.ignored().iter().map(|s| (s.kind, s.frames, s.last.clone())).collect();
    let not_yet = (Kind::NotYet(0), 2, packet(NOT_YET, false, 3));
    assert_eq!(seen, [not_yet, (Kind::Ignored(0), 1, packet(IGNORE, false, 2))]);
    assert_eq!((presence.held().len(), presence.held().drops().of(Reason::Ignored)), (2, 1));
}

/// One frame that a program is asked about, between two that are held.
fn asked(presence: &mut Presence<ByLastOctet>, kind: u8) -> Ticket {
    stand_in(presence, vec![]);
    take(presence, &packet(OTHER, false, 1));
    let effect = take(presence, &packet(kind, false, 2));
    take(presence, &packet(OTHER, false, 3));
    assert_eq!(effect.questions[0].packet, packet(kind, false, 2));
    effect.questions[0].ticket
}

#[test]
fn what_a_program_answers_is_not_held_any_more() {
    let mut presence = presence(10);
    let ticket = asked(&mut presence, ASK);
    assert_eq!(presence.resolve(ticket, said(0), NOW).replies.len(), 1);
    assert_eq!(presence.answered()["external"], 1);
    assert_eq!(presence.queue().take_all(), [packet(OTHER, false, 1), packet(OTHER, false, 3)]);
}

#[test]
fn what_a_program_wakes_for_keeps_its_place() {
    let mut presence = presence(10);
    let ticket = asked(&mut presence, ASK);
    assert!(presence.resolve(ticket, said(1), NOW).wake.is_some());
    let order = [packet(OTHER, false, 1), packet(ASK, false, 2), packet(OTHER, false, 3)];
    assert_eq!(presence.queue().take_all(), order);
}

#[test]
fn what_a_program_says_nothing_about_is_for_the_rules() {
    let mut presence = presence(10);
    let ticket = asked(&mut presence, ASK_AND_WAKE);
    assert!(presence.resolve(ticket, said(3), NOW).wake.is_some());
    assert_eq!(presence.held().len(), 3);
}

/// A datagram from 10.9.0.1 to a port of 10.9.0.2, with this kind in it.
fn datagram(port: u8, kind: u8) -> Packet {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    frame.extend([10, 9, 0, 1, 10, 9, 0, 2, 0, 99, 0, port, 0, 9, 0, 0, kind]);
    Packet::new(dormouse_sys::VnetHdr::PLAIN, &frame).unwrap()
}

#[test]
fn a_scanner_s_frame_is_one_when_a_program_says_nothing_of_it() {
    let limits = dormouse_wire::ScanLimits { ports: 3, ..Default::default() };
    let scanners = RefCell::new(Scanners::new(limits));
    let mut presence = presence(10);
    stand_in(&mut presence, vec![]);
    let mut tickets = Vec::new();
    for port in 1..=3 {
        let packet = datagram(port, ASK_AND_WAKE);
        let bytes = packet.ethernet();
        let header = dormouse_sys::VnetHdr::PLAIN;
        let frame = dormouse_sys::Frame {
            header,
            bytes,
            vlan: None,
            outgoing: false,
            truncated: false,
            mark: 0,
            length: bytes.len(),
        };
        let effect = presence.take(&Arrival::received(&frame, NOW, Some(&scanners)).unwrap());
        tickets.push(effect.questions[0].ticket);
    }
    assert_eq!(presence.resolve(tickets[2], Said::Nothing, NOW), Effect::default());
    assert_eq!(presence.ignored().iter().map(|seen| seen.kind).collect::<Vec<_>>(), [Kind::Scanner]);
    // It was none yet when the first came.
    assert!(presence.resolve(tickets[0], Said::Nothing, NOW).wake.is_some());
}

#[test]
fn what_a_program_holds_wakes_nobody() {
    let mut presence = presence(10);
    let ticket = asked(&mut presence, ASK_AND_WAKE);
    assert_eq!(presence.resolve(ticket, Said::Hold, NOW), Effect::default());
    assert_eq!(presence.held().len(), 3);
    assert_eq!(presence.resolve(ticket, Said::Nothing, NOW), Effect::default());
}

#[test]
fn what_a_program_says_too_late_does_nothing() {
    let mut presence = presence(10);
    let ticket = asked(&mut presence, ASK);
    presence.release(NOW);
    assert_eq!(presence.resolve(ticket, said(0), NOW), Effect::default());
    assert_eq!(presence.held().len(), 3);
}

#[test]
fn programs_are_asked_about_so_many_frames_and_no_more() {
    let mut presence = presence(1000);
    stand_in(&mut presence, vec![]);
    let asks: usize = (0..200).map(|n| take(&mut presence, &packet(ASK, false, n)).questions.len()).sum();
    assert_eq!((asks, presence.held().len()), (MAX_TICKETS, 200));
}
