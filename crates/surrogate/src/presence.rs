//! What is done with each frame that comes for one port of a sleeper: the rules, without I/O.
//!
//! ```text
//!            stand_in             prepare            release
//!  Holding ───────────► Standing ─────────► Waking ─────────► Releasing ──► gone
//!     └──────────────────────────────────────────────────────────▲
//! ```
//!
//! | frame                            | Holding    | Standing   | Waking | Releasing |
//! |----------------------------------|------------|------------|--------|-----------|
//! | answered now                     | hold       | answer     | answer | hold      |
//! | a program is asked about it      | hold       | hold, ask  | hold, ask | hold   |
//! | ignored by the machine or a rule | hold       | drop       | drop   | hold      |
//! | the wake rules name it           | hold, tell | hold, tell | hold   | hold      |
//! | anything else                    | hold       | hold       | hold   | hold      |
//!
//! What was held while the guest still ran is judged again when it stands still. A frame that is
//! held until something is known of it has a *ticket*. It keeps its place in the queue, so that the
//! guest gets it in order if it wakes first; what is known only then comes too late and is dropped.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use dormouse_types::Timestamp;
use dormouse_wire::Scanners;

use crate::{
    Mode, Reason,
    packet::{Arrival, Packet},
    queue::{Pushed, ReplayQueue, Ticket, Worth},
};

/// Most frames of one port that have a ticket at a time.
const MAX_TICKETS: usize = 64;

/// What a frame is to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// This can be answered without the machine.
    Answer {
        /// Who knew the answer.
        by: &'static str,
        /// The answer: Ethernet frames with all their checksums. None, if it needs none.
        frames: Vec<Vec<u8>>,
        /// The machine is wanted nevertheless; why.
        wake: Option<String>,
    },
    /// The program of this index is to be asked.
    Ask(usize),
    /// The machine is wanted: its wake rules name the frame, or there is another reason.
    Wake(Option<&'static str>),
    /// The machine would do nothing with it, as an address request for somebody else.
    Nothing,
    /// It is to be dropped, as its ignore list says.
    Ignore(Kind),
    /// None of these; and, if it might have woken the machine, why it does not.
    Other(Option<Kind>),
}

/// Why a frame does not wake a machine though it might have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It came from a scanner.
    Scanner,
    /// The entry of this index of its ignore list names it.
    Ignored(usize),
    /// The wake rule of this index names it, and its rate is not reached.
    NotYet(usize),
}

/// What a program says of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Answer it with these.
    Reply(Vec<Vec<u8>>),
    /// Wake the machine.
    Wake,
    /// Drop it.
    Ignore,
    /// Hold it; it wakes nobody.
    Hold,
    /// Nothing: the ordinary rules count.
    Nothing,
}

/// What the passing of time brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Frames to send, each with the word for counters.
    pub sends: Vec<(&'static str, Vec<u8>)>,
    /// Frames to send that belong to what was counted already.
    pub replies: Vec<Vec<u8>>,
    /// The machine is wanted; why.
    pub wake: Option<String>,
}

/// Knows what a frame is to one port of a machine. Must not panic, whatever the octets.
pub(crate) trait Judge {
    /// Judges a frame. `asleep`: the machine stands still, so that services may be spoken and
    /// programs be asked for it.
    fn judge(&mut self, arrival: &Arrival<'_>, asleep: bool) -> Judgement;

    /// Judges by the ignore list and the wake rules alone: [`Judgement::Wake`],
    /// [`Judgement::Nothing`], [`Judgement::Ignore`] or [`Judgement::Other`].
    fn judge_by_rules(&mut self, arrival: &Arrival<'_>) -> Judgement;

    /// When [`Judge::due`] is to be called next.
    fn deadline(&self) -> Option<Timestamp>;

    /// What time brings at `now`.
    fn due(&mut self, now: Timestamp) -> Due;

    /// The machine runs, or is forgotten: the last words to those whom it spoke to.
    fn end(&mut self, now: Timestamp) -> Vec<Vec<u8>>;

    /// Does a frame that is held end a connection of the machine's?
    fn is_close(&self, arrival: &Arrival<'_>) -> bool;

    /// The frame in one line.
    fn describe(&self, ethernet: &[u8]) -> String;
}

/// The frame that woke a machine, and when; shared by its ports, so that it is told once.
pub(crate) type Waker = Arc<OnceLock<(Timestamp, String)>>;

/// A program is to be asked about a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// By which the answer finds the frame.
    pub ticket: Ticket,
    /// The program.
    pub program: usize,
    /// The frame.
    pub packet: Packet,
}

/// What is to be done after a frame was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Frames to send.
    pub replies: Vec<Vec<u8>>,
    /// Tell that the machine is wanted, because of this.
    pub wake: Option<String>,
    /// Programs to ask.
    pub questions: Vec<Question>,
    /// The frame is held.
    pub held: bool,
    /// There was no room: the frame, or one that it displaced, was dropped.
    pub crowded: bool,
}

impl Effect {
    /// Adds what another frame brought.
    fn merge(&mut self, other: Self) {
        self.replies.extend(other.replies);
        self.wake = self.wake.take().or(other.wake);
        self.questions.extend(other.questions);
    }
}

/// Frames of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) frames: u64,
    /// The start of the last one.
    pub(crate) last: Packet,
    pub(crate) at: Timestamp,
}

/// The stand-in for one port. See the module's description.
#[derive(Debug)]
pub(crate) struct Presence<J> {
    mode: Mode,
    judge: J,
    queue: ReplayQueue,
    answered: BTreeMap<&'static str, u64>,
    /// Few: as many as the machine has rules.
    ignored: Vec<Seen>,
    /// Of the frames that programs are asked about; did they come from a scanner?
    tickets: BTreeMap<Ticket, bool>,
    waker: Waker,
}

impl<J: Judge> Presence<J> {
    /// A stand-in that starts in `mode`.
    #[must_use]
    pub(crate) const fn new(mode: Mode, judge: J, queue: ReplayQueue, waker: Waker) -> Self {
        Self {
            mode,
            judge,
            queue,
            answered: BTreeMap::new(),
            ignored: Vec::new(),
            tickets: BTreeMap::new(),
            waker,
        }
    }

    /// Takes a frame that came for this port, or for a group.
    pub(crate) fn take(&mut self, arrival: &Arrival<'_>) -> Effect {
        if self.mode == Mode::Releasing {
            return self.pass_on(arrival);
        }
        let judgement = self.judge.judge(arrival, self.is_asleep());
        self.act(arrival, judgement)
    }

    fn act(&mut self, arrival: &Arrival<'_>, judgement: Judgement) -> Effect {
        let asleep = self.is_asleep();
        match judgement {
            Judgement::Answer { by, frames, wake } if asleep => {
                self.count_answered(by);
                let wake = wake.and_then(|why| self.wake(arrival.now(), || why));
                Effect { replies: frames, wake, ..Effect::default() }
            }
            Judgement::Ask(program) if asleep => self.ask(arrival, program),
            Judgement::Nothing if asleep => {
                self.queue.count_drops(Reason::Filtered, 1);
                Effect::default()
            }
            Judgement::Ignore(kind) if asleep => {
                self.note(kind, arrival);
                self.queue.count_drops(Reason::Ignored, 1);
                Effect::default()
            }
            Judgement::Wake(why) => {
                let wake = self.wake_for(arrival, why);
                Effect { wake, ..self.hold(arrival, None) }
            }
            Judgement::Other(Some(kind)) if asleep => {
                self.note(kind, arrival);
                self.hold(arrival, None)
            }
            _ => self.hold(arrival, None),
        }
    }

    fn ask(&mut self, arrival: &Arrival<'_>, program: usize) -> Effect {
        let Some(ticket) = self.ticket() else { return self.act_by_rules(arrival) };
        let mut effect = self.hold(arrival, Some(ticket));
        if effect.held {
            let scanner = arrival.frame().is_some_and(|frame| arrival.is_from_scanner(&frame));
            self.tickets.insert(ticket, scanner);
            effect.questions.push(Question { ticket, program, packet: arrival.packet() });
        }
        effect
    }

    fn act_by_rules(&mut self, arrival: &Arrival<'_>) -> Effect {
        let judgement = self.judge.judge_by_rules(arrival);
        self.act(arrival, judgement)
    }

    /// A program said what it thinks of the frame with this ticket. Nothing happens if it comes too
    /// late: the guest runs, or the frame had to give way.
    pub(crate) fn resolve(&mut self, ticket: Ticket, said: Said, now: Timestamp) -> Effect {
        let Some(from_scanner) = self.tickets.remove(&ticket).filter(|_| self.is_asleep()) else {
            return Effect::default();
        };
        let Some(packet) = self.queue.get(ticket).cloned() else { return Effect::default() };
        let arrival = Arrival::once_more(&packet, now, from_scanner);
        match said {
            Said::Reply(replies) => {
                self.queue.remove(ticket);
                self.count_answered("external");
                Effect { replies, ..Effect::default() }
            }
            Said::Ignore => self.drop_resolved(ticket, Reason::Filtered),
            Said::Wake => self.wake_resolved(ticket, &arrival, None),
            Said::Hold => Effect::default(),
            Said::Nothing => match self.judge.judge_by_rules(&arrival) {
                Judgement::Wake(why) => self.wake_resolved(ticket, &arrival, why),
                Judgement::Nothing => self.drop_resolved(ticket, Reason::Filtered),
                Judgement::Ignore(kind) => {
                    self.note(kind, &arrival);
                    self.drop_resolved(ticket, Reason::Ignored)
                }
                Judgement::Other(Some(kind)) => {
                    self.note(kind, &arrival);
                    Effect::default()
                }
                _ => Effect::default(),
            },
        }
    }

    fn drop_resolved(&mut self, ticket: Ticket, reason: Reason) -> Effect {
        self.queue.remove(ticket);
        self.queue.count_drops(reason, 1);
        Effect::default()
    }

    fn wake_resolved(&mut self, ticket: Ticket, arrival: &Arrival<'_>, why: Option<&'static str>) -> Effect {
        self.queue.freshen(ticket);
        Effect { wake: self.wake_for(arrival, why), ..Effect::default() }
    }

    /// When [`Presence::due`] is to be called next.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        if !self.is_asleep() {
            return None;
        }
        self.judge.deadline()
    }

    /// What the passing of time brings.
    pub(crate) fn due(&mut self, now: Timestamp) -> Effect {
        let mut effect = Effect::default();
        if !self.is_asleep() {
            return effect;
        }
        let Due { sends, replies, wake } = self.judge.due(now);
        effect.replies.extend(replies);
        for (by, frame) in sends {
            self.count_answered(by);
            effect.replies.push(frame);
        }
        effect.wake = wake.and_then(|why| self.wake(now, || why));
        effect
    }

    /// The guest runs (again): answer nothing.
    pub(crate) fn capture(&mut self, judge: Option<J>, now: Timestamp) -> Effect {
        let effect = self.replace_judge(judge, now);
        self.mode = Mode::Holding;
        effect
    }

    /// The guest stands still now; `older` is what it left unread. Judges all that is held, by
    /// another judge from now on, if there is one. The boundary must be closed.
    pub(crate) fn stand_in(
        &mut self,
        judge: Option<J>,
        older: Vec<Packet>,
        now: Timestamp,
        scanners: Option<&RefCell<Scanners>>,
    ) -> Effect {
        let mut all = self.replace_judge(judge, now);
        self.mode = Mode::Standing;
        self.queue.push_older(older);
        for packet in self.queue.take_all() {
            all.merge(self.take(&Arrival::again(&packet, now, scanners)));
        }
        all
    }

    /// `None`: it keeps the judge that it has.
    fn replace_judge(&mut self, judge: Option<J>, now: Timestamp) -> Effect {
        let effect = self.end(now);
        if let Some(judge) = judge {
            self.judge = judge;
        }
        effect
    }

    /// The last words to those whom it spoke to. Nothing is asked any more.
    pub(crate) fn end(&mut self, now: Timestamp) -> Effect {
        self.tickets.clear();
        let replies = if self.is_asleep() { self.judge.end(now) } else { Vec::new() };
        Effect { replies, ..Effect::default() }
    }

    /// The guest is on its way to run: nobody needs to be told any more.
    pub(crate) const fn prepare(&mut self) {
        self.mode = Mode::Waking;
    }

    /// The guest runs, and answers for itself. Opens the boundary: from now on the bridge may
    /// give it group frames.
    pub(crate) fn release(&mut self, now: Timestamp) -> Effect {
        let effect = self.end(now);
        self.mode = Mode::Releasing;
        self.queue.open_boundary();
        effect
    }

    /// What is held, and what was dropped.
    pub(crate) const fn queue(&mut self) -> &mut ReplayQueue {
        &mut self.queue
    }

    /// The same, to look at.
    #[must_use]
    pub(crate) const fn held(&self) -> &ReplayQueue {
        &self.queue
    }

    /// Who judges.
    #[must_use]
    pub(crate) const fn judge(&self) -> &J {
        &self.judge
    }

    /// What is done with frames now.
    #[must_use]
    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Frames answered, by responder.
    #[must_use]
    pub(crate) const fn answered(&self) -> &BTreeMap<&'static str, u64> {
        &self.answered
    }

    /// Frames that did not wake it though they might have.
    #[must_use]
    pub(crate) fn ignored(&self) -> &[Seen] {
        &self.ignored
    }

    /// May frames be kept away if they are too many? What comes while the guest runs is its own.
    pub(crate) const fn keeps_away(&self) -> bool {
        self.is_asleep()
    }

    /// Is it answered for?
    const fn is_asleep(&self) -> bool {
        matches!(self.mode, Mode::Standing | Mode::Waking)
    }

    fn ticket(&self) -> Option<Ticket> {
        (self.tickets.len() < MAX_TICKETS).then(Ticket::new)
    }

    fn count_answered(&mut self, by: &'static str) {
        *self.answered.entry(by).or_default() += 1;
    }

    /// Takes note of a frame that does not wake the machine.
    fn note(&mut self, kind: Kind, arrival: &Arrival<'_>) {
        let (last, at) = (arrival.packet().start(), arrival.now());
        match self.ignored.iter_mut().find(|seen| seen.kind == kind) {
            Some(seen) => *seen = Seen { frames: seen.frames + 1, last, at, ..*seen },
            None => self.ignored.push(Seen { kind, frames: 1, last, at }),
        }
    }

    /// Once the boundary is closed the bridge gives the guest every group frame.
    fn pass_on(&mut self, arrival: &Arrival<'_>) -> Effect {
        if arrival.is_group() && !self.queue.boundary_is_open() {
            self.queue.count_suppressed();
            return Effect::default();
        }
        self.hold(arrival, None)
    }

    fn hold(&mut self, arrival: &Arrival<'_>, ticket: Option<Ticket>) -> Effect {
        let wanted = self.mode != Mode::Standing || self.waker.get().is_some();
        let worth = match wanted {
            true => Worth::Fresh,
            false if self.judge.is_close(arrival) => Worth::Close,
            false => Worth::Stale,
        };
        let pushed = if arrival.is_group() {
            self.queue.push_group(arrival.packet(), worth, ticket)
        } else {
            self.queue.push(arrival.packet(), worth, ticket)
        };
        Effect { held: pushed.is_held(), crowded: pushed != Pushed::Held, ..Effect::default() }
    }

    fn wake_for(&self, arrival: &Arrival<'_>, why: Option<&'static str>) -> Option<String> {
        self.wake(arrival.now(), || {
            let frame = self.judge.describe(arrival.ethernet());
            why.map_or_else(|| frame.clone(), |why| format!("{why}: {frame}"))
        })
    }

    fn wake(&self, now: Timestamp, why: impl FnOnce() -> String) -> Option<String> {
        if self.mode == Mode::Waking || self.waker.get().is_some() {
            return None;
        }
        let why = why();
        self.waker.set((now, why.clone())).ok().map(|()| why)
    }
}

#[cfg(test)]
mod tests {
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
        let mut frame =
            vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
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
}
