//! Frames that left the bridge and that the surrogate never got to see.

use crate::{Drops, Reason};

/// What a bridge's socket has not given out since it was opened, whomever it was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Frames that found no room in its buffer.
    pub(crate) overrun: u64,
    /// Frames that the kernel could not describe.
    pub(crate) unreadable: u64,
}

impl Losses {
    /// What has come to it since it was `before`.
    #[must_use]
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            overrun: self.overrun.saturating_sub(before.overrun),
            unreadable: self.unreadable.saturating_sub(before.unreadable),
        }
    }

    /// Those of one port: `behind` of them if its frames are counted; else it may have been any.
    #[must_use]
    pub(crate) fn of_port(self, behind: Option<u64>) -> Drops {
        let unreadable = behind.map_or(self.unreadable, |behind| behind.min(self.unreadable));
        let overrun = behind.map_or(self.overrun, |behind| behind - unreadable);
        let mut drops = Drops::default();
        drops.add(Reason::Unreadable, unreadable);
        drops.add(Reason::Overrun, overrun);
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_numbers_it_is_what_the_whole_bridge_lost() {
        let before = Losses { overrun: 2, unreadable: 1 };
        let drops = Losses { overrun: 5, unreadable: 5 }.since(before).of_port(None);
        assert_eq!((drops.of(Reason::Overrun), drops.of(Reason::Unreadable)), (3, 4));
    }

    proptest! {
        #[test]
        fn with_numbers_it_is_exactly_what_has_not_come(overrun: u64, unreadable: u64, behind: u64) {
            let drops = Losses { overrun, unreadable }.of_port(Some(behind));
            prop_assert_eq!(drops.lost(), behind);
            prop_assert!(drops.of(Reason::Unreadable) <= unreadable);
        }
    }
}
