//! What is done with each frame that comes for one port of a sleeper: the rules, without I/O.
//!
//! ```text
//!            stand_in             prepare            release
//!  Holding ───────────► Standing ─────────► Waking ─────────► Releasing ──► gone
//!     └──────────────────────────────────────────────────────────▲
//! ```
//!
//! | frame                          | Holding    | Standing   | Waking | Releasing |
//! |--------------------------------|------------|------------|--------|-----------|
//! | a responder knows an answer    | hold       | answer     | answer | hold      |
//! | the machine would ignore it    | hold       | drop       | drop   | hold      |
//! | the wake rules name it         | hold, tell | hold, tell | hold   | hold      |
//! | anything else                  | hold       | hold       | hold   | hold      |
//!
//! What was held while the guest still ran is judged again when it stands still.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use dormouse_types::Timestamp;

use crate::{
    Mode, Reason,
    packet::Packet,
    queue::{ReplayQueue, Worth},
};

/// What a frame is to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// This can be answered without the machine.
    Answer {
        /// Who knew the answer.
        by: &'static str,
        /// The answer, an Ethernet frame with all its checksums.
        frame: Vec<u8>,
    },
    /// The machine's wake rules name it.
    Wake,
    /// The machine would do nothing with it, as an address request for somebody else.
    Ignore,
    /// None of these.
    Other,
}

/// Knows what a frame is to one port of a machine. Must not panic, whatever the octets.
pub(crate) trait Judge {
    /// Judges an Ethernet frame.
    fn judge(&mut self, ethernet: &[u8], now: Timestamp) -> Judgement;

    /// The frame in one line.
    fn describe(&self, ethernet: &[u8]) -> String;
}

/// The frame that woke a machine, and when; shared by its ports, so that it is told once.
pub(crate) type Waker = Arc<OnceLock<(Timestamp, String)>>;

/// What is to be done after a frame was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Frames to send.
    pub replies: Vec<Vec<u8>>,
    /// Tell that the machine is wanted, because of this frame.
    pub wake: Option<String>,
}

/// The stand-in for one port. See the module's description.
#[derive(Debug)]
pub(crate) struct Presence<J> {
    mode: Mode,
    judge: J,
    queue: ReplayQueue,
    answered: BTreeMap<&'static str, u64>,
    waker: Waker,
}

impl<J: Judge> Presence<J> {
    /// A stand-in that starts in `mode`.
    #[must_use]
    pub(crate) fn new(mode: Mode, judge: J, queue: ReplayQueue, waker: Waker) -> Self {
        Self { mode, judge, queue, answered: BTreeMap::new(), waker }
    }

    /// Takes a frame that came for this port, or for a group.
    pub(crate) fn take(&mut self, packet: &Packet, now: Timestamp) -> Effect {
        if self.mode == Mode::Releasing {
            self.pass_on(packet);
            return Effect::default();
        }
        let answering = self.mode != Mode::Holding;
        match self.judge.judge(packet.ethernet(), now) {
            Judgement::Answer { by, frame } if answering => {
                *self.answered.entry(by).or_default() += 1;
                Effect { replies: vec![frame], wake: None }
            }
            Judgement::Ignore if answering => {
                self.queue.count_drops(Reason::Filtered, 1);
                Effect::default()
            }
            Judgement::Wake => {
                let wake = self.wake(packet, now);
                self.hold(packet);
                Effect { replies: Vec::new(), wake }
            }
            _ => {
                self.hold(packet);
                Effect::default()
            }
        }
    }

    /// The guest runs (again): answer nothing.
    pub(crate) fn capture(&mut self) {
        self.mode = Mode::Holding;
    }

    /// The guest stands still now; `older` is what it left unread. Judges all that is held.
    /// The boundary must be closed.
    pub(crate) fn stand_in(&mut self, older: Vec<Packet>, now: Timestamp) -> Effect {
        self.mode = Mode::Standing;
        self.queue.push_older(older);
        let mut all = Effect::default();
        for packet in self.queue.take_all() {
            let effect = self.take(&packet, now);
            all.replies.extend(effect.replies);
            all.wake = all.wake.or(effect.wake);
        }
        all
    }

    /// The guest is on its way to run: nobody needs to be told any more.
    pub(crate) fn prepare(&mut self) {
        self.mode = Mode::Waking;
    }

    /// The guest runs, and answers for itself. Opens the boundary: from now on the bridge may
    /// give it group frames.
    pub(crate) fn release(&mut self) {
        self.mode = Mode::Releasing;
        self.queue.open_boundary();
    }

    /// What is held, and what was dropped.
    pub(crate) fn queue(&mut self) -> &mut ReplayQueue {
        &mut self.queue
    }

    /// The same, to look at.
    #[must_use]
    pub(crate) const fn held(&self) -> &ReplayQueue {
        &self.queue
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

    /// Once the boundary is closed the bridge gives the guest every group frame.
    fn pass_on(&mut self, packet: &Packet) {
        if packet.destination().is_multicast() && !self.queue.boundary_is_open() {
            self.queue.count_suppressed();
        } else {
            self.hold(packet);
        }
    }

    fn hold(&mut self, packet: &Packet) {
        let wanted = self.mode != Mode::Standing || self.waker.get().is_some();
        let worth = if wanted { Worth::Fresh } else { Worth::Stale };
        if packet.destination().is_multicast() {
            self.queue.push_group(packet.clone(), worth);
        } else {
            self.queue.push(packet.clone(), worth);
        }
    }

    fn wake(&self, packet: &Packet, now: Timestamp) -> Option<String> {
        if self.mode == Mode::Waking || self.waker.get().is_some() {
            return None;
        }
        let frame = self.judge.describe(packet.ethernet());
        self.waker.set((now, frame.clone())).ok().map(|()| frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, queue::Budget};
    use proptest::prelude::*;

    /// The frame's last octet says what it is.
    #[derive(Debug)]
    struct ByLastOctet;

    impl Judge for ByLastOctet {
        fn judge(&mut self, ethernet: &[u8], _now: Timestamp) -> Judgement {
            match ethernet.last() {
                Some(0) => Judgement::Answer { by: "test", frame: ethernet.to_vec() },
                Some(1) => Judgement::Wake,
                Some(2) => Judgement::Ignore,
                _ => Judgement::Other,
            }
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
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => (0_u8..4, any::<bool>()).prop_map(|(kind, group)| Step::Frame { kind, group }),
            1 => Just(Step::StandIn),
            1 => Just(Step::Prepare),
            1 => Just(Step::Release),
            2 => Just(Step::Pop),
        ]
    }

    fn packet(kind: u8, group: bool, number: u32) -> Packet {
        let mut frame = vec![u8::from(group); 14];
        frame.extend(number.to_be_bytes());
        frame.push(kind);
        Packet::new(dormouse_sys::VnetHdr::PLAIN, &frame).unwrap()
    }

    fn presence(frames: u64) -> Presence<ByLastOctet> {
        let queue = ReplayQueue::new(Budget::new(Limits { frames, bytes: 1 << 20 }));
        Presence::new(Mode::Holding, ByLastOctet, queue, Waker::default())
    }

    proptest! {
        #[test]
        fn every_frame_has_one_fate_and_one_who_answers(
            steps in prop::collection::vec(step(), 0..200),
            limit in 0_u64..50,
        ) {
            let mut presence = presence(limit);
            let (mut replies, mut wakes, mut out, mut came) = (0_u64, 0, Vec::new(), 0_u32);
            for step in steps {
                let before = presence.mode();
                let effect = match step {
                    Step::Frame { kind, group } => {
                        came += 1;
                        presence.take(&packet(kind, group, came), Timestamp(1))
                    }
                    Step::StandIn if before == Mode::Holding => presence.stand_in(vec![], Timestamp(1)),
                    Step::Prepare if before == Mode::Standing => { presence.prepare(); Effect::default() }
                    Step::Release => { presence.release(); Effect::default() }
                    Step::Pop if before == Mode::Releasing => {
                        out.extend(presence.queue().pop());
                        Effect::default()
                    }
                    _ => Effect::default(),
                };
                let guest_answers = matches!(presence.mode(), Mode::Holding | Mode::Releasing);
                prop_assert!(!guest_answers || effect.replies.is_empty());
                prop_assert!(effect.wake.is_none() || matches!(presence.mode(), Mode::Holding | Mode::Standing));
                replies += effect.replies.len() as u64;
                wakes += u32::from(effect.wake.is_some());
            }
            presence.queue().close_boundary(|_| 0);
            while let Some(packet) = presence.queue().pop() {
                out.push(packet);
            }
            prop_assert!(wakes <= 1);
            prop_assert_eq!(presence.answered().values().sum::<u64>(), replies);
            let dropped: u64 = presence.queue().drops().iter().map(|(_, frames)| frames).sum();
            prop_assert_eq!(u64::from(came), replies + dropped + out.len() as u64);
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
        for kind in [0, 2, 3] {
            assert_eq!(presence.take(&packet(kind, false, 1), Timestamp(1)), Effect::default());
        }
        let effect = presence.stand_in(vec![packet(1, false, 0)], Timestamp(2));
        assert_eq!(effect.replies.len(), 1);
        assert!(effect.wake.is_some());
        assert_eq!(presence.queue().drops().of(Reason::Filtered), 1);
        assert_eq!(presence.queue().pop(), Some(packet(1, false, 0)));
        assert_eq!(presence.queue().pop(), Some(packet(3, false, 1)));
    }

    #[test]
    fn group_frames_after_the_boundary_are_the_bridges() {
        let mut presence = presence(10);
        presence.release();
        presence.take(&packet(3, true, 1), Timestamp(1));
        presence.queue().close_boundary(|_| 0);
        presence.take(&packet(3, true, 2), Timestamp(1));
        presence.take(&packet(3, false, 3), Timestamp(1));
        let out: Vec<_> = presence.queue().take_all();
        assert_eq!(out, [packet(3, true, 1), packet(3, false, 3)]);
        assert_eq!(presence.held().suppressed(), 1);
    }

    #[test]
    fn an_answerable_frame_undoes_no_sleep_and_a_wanted_one_does_once() {
        let mut presence = presence(10);
        assert_eq!(presence.take(&packet(0, false, 1), Timestamp(1)).wake, None);
        assert!(presence.take(&packet(1, false, 2), Timestamp(1)).wake.is_some());
        assert_eq!(presence.take(&packet(1, false, 3), Timestamp(1)).wake, None);
    }
}
