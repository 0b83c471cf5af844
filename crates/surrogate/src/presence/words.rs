//! The words between a port's stand-in and whoever judges its frames or carries out its wishes.

use std::sync::{Arc, OnceLock};

use dormouse_types::Timestamp;

use crate::{
    packet::{Arrival, Packet},
    queue::Ticket,
};

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
    pub(super) fn merge(&mut self, other: Self) {
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
