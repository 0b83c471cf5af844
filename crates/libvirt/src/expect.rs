//! Which events are of our own making.
//!
//! libvirt tells everyone of everything and does not say who did it. So what we ask for is noted with the
//! events that it may cause: each of them once, from when it is asked until a while after the answer, for
//! an event may come later than the answer to what caused it.

use std::time::Duration;

use dormouse_types::Timestamp;

use crate::happening::{Happening, Pause, Resume, Start, Stop};

/// How long after the answer an event may come: libvirt sends both by the same connection, and most
/// events first.
const GRACE: Duration = Duration::from_secs(2);

/// What we ask of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Start it, or restore it, and leave it paused.
    Load,
    Resume,
    WakeUp,
    Pause,
    /// Have its guest suspend itself.
    Suspend,
    Save,
    PowerDown,
    Kill,
}

impl Deed {
    /// What it causes: of each group one event at most. What it only may cause, and what would be taken for ours
    /// in vain, is not in it: of a change that is told and is none the core makes nothing.
    const fn causes(self) -> &'static [&'static [Happening]] {
        use Happening as H;
        match self {
            Self::Load => &[
                &[H::Started(Start::Booted), H::Started(Start::Restored)],
                &[H::Suspended(Pause::Paused), H::Suspended(Pause::Restored)],
                // Where it fails half-way.
                &[H::Stopped(Stop::Failed)],
            ],
            Self::Resume => &[&[H::Resumed(Resume::Unpaused)]],
            Self::WakeUp => &[&[H::Started(Start::WokeUp)]],
            Self::Pause => &[&[H::Suspended(Pause::Paused)]],
            Self::Suspend => &[&[H::PmSuspended { to_disk: false }]],
            Self::Save => &[&[H::Stopped(Stop::Saved)]],
            Self::PowerDown => &[&[H::Stopped(Stop::ShutDown)]],
            Self::Kill => &[&[H::Stopped(Stop::Destroyed)]],
        }
    }
}

/// Events to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectations {
    open: Vec<Expected>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Expected {
    id: u64,
    left: Vec<&'static [Happening]>,
    /// `None`: the answer is not there yet.
    until: Option<Timestamp>,
}

impl Expectations {
    /// It will be asked for; returns what to give to [`Expectations::answered`].
    pub(crate) fn asked(&mut self, deed: Deed) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.push(Expected { id, left: deed.causes().to_vec(), until: None });
        id
    }

    /// The answer is there, whatever it is.
    pub(crate) fn answered(&mut self, id: u64, now: Timestamp) {
        if let Some(expected) = self.open.iter_mut().find(|expected| expected.id == id) {
            expected.until = Some(now + GRACE);
        }
        self.expire(now);
    }

    /// Is it ours? Then it is not expected once more for the same deed.
    pub(crate) fn is_ours(&mut self, happening: Happening, now: Timestamp) -> bool {
        self.expire(now);
        for expected in &mut self.open {
            if let Some(n) = expected.left.iter().position(|group| group.contains(&happening)) {
                expected.left.swap_remove(n);
                return true;
            }
        }
        false
    }

    /// libvirt was away: what it did not tell it never will.
    pub(crate) fn forget_answered(&mut self) {
        self.open.retain(|expected| expected.until.is_none());
    }

    fn expire(&mut self, now: Timestamp) {
        // One that is due in more than the grace: the clock was set back.
        self.open
            .retain(|expected| expected.until.is_none_or(|until| until > now && until.since(now) <= GRACE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUSPENDED: Happening = Happening::Suspended(Pause::Paused);
    const DESTROYED: Happening = Happening::Stopped(Stop::Destroyed);
    const DEEDS: [Deed; 8] = [
        Deed::Load,
        Deed::Resume,
        Deed::WakeUp,
        Deed::Pause,
        Deed::Suspend,
        Deed::Save,
        Deed::PowerDown,
        Deed::Kill,
    ];

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn ours_is_ours_before_and_shortly_after_the_answer() {
        let mut expectations = Expectations::default();
        let pause = expectations.asked(Deed::Pause);
        assert!(expectations.is_ours(SUSPENDED, at(100)));
        expectations.answered(pause, at(100));
        let pause = expectations.asked(Deed::Pause);
        expectations.answered(pause, at(101));
        assert!(expectations.is_ours(SUSPENDED, at(102)));
    }

    #[test]
    fn the_second_of_a_kind_is_not_ours() {
        let mut expectations = Expectations::default();
        let pause = expectations.asked(Deed::Pause);
        assert!(expectations.is_ours(SUSPENDED, at(1)));
        assert!(!expectations.is_ours(SUSPENDED, at(1)));
        expectations.answered(pause, at(1));
        assert!(!expectations.is_ours(SUSPENDED, at(1)));
    }

    #[test]
    fn a_start_is_of_one_kind() {
        let mut expectations = Expectations::default();
        let load = expectations.asked(Deed::Load);
        assert!(expectations.is_ours(Happening::Started(Start::Restored), at(1)));
        assert!(expectations.is_ours(Happening::Suspended(Pause::Restored), at(1)));
        expectations.answered(load, at(1));
        // Somebody suspends it at once.
        assert!(!expectations.is_ours(SUSPENDED, at(1)));
    }

    #[test]
    fn what_comes_late_is_not_ours() {
        let mut expectations = Expectations::default();
        let kill = expectations.asked(Deed::Kill);
        expectations.answered(kill, at(1));
        assert!(!expectations.is_ours(DESTROYED, at(1) + GRACE));
    }

    #[test]
    fn what_others_do_meanwhile_is_theirs() {
        let mut expectations = Expectations::default();
        let _save = expectations.asked(Deed::Save);
        assert!(!expectations.is_ours(DESTROYED, at(1)));
        assert!(!expectations.is_ours(Happening::Undefined, at(1)));
    }

    #[test]
    fn after_a_restart_of_libvirt_only_what_is_under_way_is_expected() {
        let mut expectations = Expectations::default();
        let pause = expectations.asked(Deed::Pause);
        expectations.answered(pause, at(1));
        let _kill = expectations.asked(Deed::Kill);
        expectations.forget_answered();
        assert!(!expectations.is_ours(SUSPENDED, at(1)));
        assert!(expectations.is_ours(DESTROYED, at(1)));
    }

    proptest! {
        /// An event is taken for ours at most as often as it was asked for; and nothing is kept for good.
        #[test]
        fn never_more_than_was_asked_for(
            steps in prop::collection::vec((0..3_u8, 0..DEEDS.len(), 0..4_u64), 0..100)
        ) {
            let (mut expectations, mut now) = (Expectations::default(), at(0));
            let (mut asked, mut ours, mut open) = (0, 0, Vec::new());
            for (step, which, seconds) in steps {
                now = now + Duration::from_secs(seconds);
                match step {
                    0 => {
                        asked += usize::from(DEEDS[which].causes().iter().any(|group| group.contains(&SUSPENDED)));
                        open.push(expectations.asked(DEEDS[which]));
                    }
                    1 => open.pop().into_iter().for_each(|id| expectations.answered(id, now)),
                    _ => ours += usize::from(expectations.is_ours(SUSPENDED, now)),
                }
            }
            prop_assert!(ours <= asked);
            for id in open {
                expectations.answered(id, now);
            }
            prop_assert!(!expectations.is_ours(SUSPENDED, now + GRACE));
            prop_assert!(expectations.open.is_empty());
        }
    }
}
