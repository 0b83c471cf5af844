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

mod words;

use std::{cell::RefCell, collections::BTreeMap};

use dormouse_types::Timestamp;
use dormouse_wire::Scanners;

use crate::{
    Mode, Reason,
    packet::{Arrival, Packet},
    queue::{Pushed, ReplayQueue, Ticket, Worth},
};

pub(crate) use words::{Due, Effect, Judge, Judgement, Kind, Question, Said, Seen, Waker};

/// Most frames of one port that have a ticket at a time.
const MAX_TICKETS: usize = 64;

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
mod tests;
