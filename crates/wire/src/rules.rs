//! Which frames wake a sleeper and which are ignored: rules with a memory for their rates.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec};

use dormouse_types::{Matcher, Rate, Timestamp, WakeRule};

use crate::{frame::Frame, matching::Subject, persona::Persona, respond::Identity};

/// The rules of one interface of a sleeper. The lists are shared; only what rates need is its own.
#[derive(Clone, Debug)]
pub struct Rules {
    wake: Arc<[WakeRule]>,
    ignore: Arc<[Matcher]>,
    /// One for each wake rule; `None` if none of them has a rate.
    windows: Option<Box<[Window]>>,
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
    pub fn new(wake: Arc<[WakeRule]>, ignore: Arc<[Matcher]>) -> Self {
        let has_rates = wake.iter().any(|rule| rule.rate.is_some());
        let windows = has_rates.then(|| vec![Window::default(); wake.len()].into());
        Self { wake, ignore, windows }
    }

    /// Judges a frame. One that bears the sleeper's own address as its source never wakes it.
    pub fn judge(&mut self, frame: &Frame<'_>, who: &Identity, persona: &Persona, now: Timestamp) -> Verdict {
        if frame.src() == who.mac {
            return Verdict::Unnamed;
        }
        let subject = Subject::new(frame, who, persona);
        if let Some(entry) = self.ignore.iter().position(|entry| subject.fits(entry)) {
            return Verdict::Ignore(entry);
        }
        let Some(index) = self.wake.iter().position(|rule| subject.wakes(&rule.matcher)) else {
            return Verdict::Unnamed;
        };
        match self.wake.get(index).and_then(|rule| rule.rate) {
            None => Verdict::Wake(index),
            Some(rate) => self.count(index, rate, now),
        }
    }

    fn count(&mut self, rule: usize, rate: Rate, now: Timestamp) -> Verdict {
        let window = self.windows.as_mut().and_then(|windows| windows.get_mut(rule));
        let seen = window.map_or(0, |window| window.note(rate, now));
        let (seen, of) = (u32::try_from(seen).unwrap_or(u32::MAX), u32::from(rate.count()));
        if seen < of { Verdict::NotYet { rule, seen, of } } else { Verdict::Wake(rule) }
    }
}

/// When the last frames came that a rule names: as many as its rate counts.
#[derive(Clone, Debug, Default)]
struct Window(VecDeque<Timestamp>);

impl Window {
    /// Takes note of one more; how many came within the rate's time, at most the rate's count.
    fn note(&mut self, rate: Rate, now: Timestamp) -> usize {
        // What is in the future was noted before the clock was set back.
        self.0.retain(|at| *at <= now && now.since(*at) < rate.within());
        if self.0.len() >= usize::from(rate.count()) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len()
    }
}
