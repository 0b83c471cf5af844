//! Which frames wake a sleeper and which are ignored: rules with a memory for their rates.

use alloc::sync::Arc;

use dormouse_types::{Matcher, Timestamp, WakeRule};

use crate::{frame::Frame, persona::Persona, respond::Identity, wake::wake_match};

/// The rules of one interface of a sleeper. The lists are shared; only what rates need is its own.
#[derive(Clone, Debug)]
pub struct Rules {
    wake: Arc<[WakeRule]>,
    _ignore: Arc<[Matcher]>,
}

/// What the rules say of a frame that no responder took. The first rule that fits counts, those of
/// the ignore list before those that wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The wake rule of this index names it.
    Wake(usize),
    /// The wake rule of this index names it, but its rate is not reached: `seen` of `of` frames.
    NotYet {
        /// The rule.
        rule: usize,
        /// Frames within the rule's time, this one included.
        seen: u32,
        /// Frames that it takes.
        of: u32,
    },
    /// The entry of this index of the ignore list names it.
    Ignore(usize),
    /// No rule names it.
    Unnamed,
}

impl Rules {
    /// Rules that have seen nothing yet.
    #[must_use]
    pub const fn new(wake: Arc<[WakeRule]>, ignore: Arc<[Matcher]>) -> Self {
        Self { wake, _ignore: ignore }
    }

    /// Judges a frame. One that bears the sleeper's own address as its source never wakes it.
    pub fn judge(
        &mut self,
        frame: &Frame<'_>,
        who: &Identity,
        _persona: &Persona,
        _now: Timestamp,
    ) -> Verdict {
        if wake_match(&self.wake, frame, who) { Verdict::Wake(0) } else { Verdict::Unnamed }
    }
}
