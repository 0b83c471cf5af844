//! Holds: reasons for which a machine must not go to sleep.

use dormouse_types::Timestamp;
use serde::{Deserialize, Serialize};

/// A reason for which a machine must stay awake, until it is released or expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Names it to [`Holds::release`]; unique among the holds a machine ever had.
    pub id: u64,
    /// Why.
    pub reason: String,
    /// Who placed it, as `uid 1000`.
    pub by: String,
    /// When it was placed.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// It lasts no longer than the connection of whoever placed it, nor than the daemon that has it.
    #[serde(default)]
    pub tied: bool,
}

/// The holds of one machine, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    holds: Vec<Hold>,
    last_id: u64,
}

/// There are as many holds as a machine may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has {} holds already, as many as it may have: release some first", Holds::MAX)]
pub struct TooManyHolds;

impl Holds {
    /// As many holds as a machine may have at once.
    pub const MAX: usize = 256;

    /// Places a hold at `now`, until `until` if given; returns it.
    ///
    /// # Errors
    /// [`TooManyHolds`].
    pub fn add(
        &mut self,
        reason: impl Into<String>,
        by: impl Into<String>,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<&Hold, TooManyHolds> {
        self.expire(now);
        if self.holds.len() >= Self::MAX {
            return Err(TooManyHolds);
        }
        self.last_id += 1;
        let (id, reason, by) = (self.last_id, reason.into(), by.into());
        let hold = Hold { id, reason, by, since: now, until, tied: false };
        Ok(self.holds.push_mut(hold))
    }

    /// Releases the hold `id`; `None` if there is none.
    pub fn release(&mut self, id: u64) -> Option<Hold> {
        let at = self.holds.iter().position(|hold| hold.id == id)?;
        Some(self.holds.remove(at))
    }

    /// Ties the hold `id` to the connection of whoever placed it.
    pub fn tie(&mut self, id: u64) {
        self.holds.iter_mut().filter(|hold| hold.id == id).for_each(|hold| hold.tied = true);
    }

    /// Releases those that were tied to connections, which an earlier daemon had; returns them.
    pub fn release_tied(&mut self) -> Vec<Hold> {
        self.holds.extract_if(.., |hold| hold.tied).collect()
    }

    /// Releases all; returns them.
    pub fn release_all(&mut self) -> Vec<Hold> {
        std::mem::take(&mut self.holds)
    }

    /// Takes out those whose time is over at `now`; returns them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Hold> {
        self.holds.extract_if(.., |hold| !hold.holds_at(now)).collect()
    }

    /// The holds that keep the machine awake at `now`.
    pub fn blocking(&self, now: Timestamp) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.holds_at(now))
    }

    /// When the next hold expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.holds.iter().filter_map(|hold| hold.until).min()
    }
}

impl Hold {
    /// Does it hold at `now`?
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holds_until_released() {
        let mut holds = Holds::default();
        let first = holds.add("backup", "uid 0", Timestamp(1), None).unwrap().id;
        let second = holds.add("upgrade", "uid 0", Timestamp(1), None).unwrap().id;
        assert_eq!(holds.release(first).unwrap().reason, "backup");
        assert_eq!(holds.release(first), None);
        assert_eq!(holds.blocking(Timestamp(u64::MAX)).map(|h| h.id).collect::<Vec<_>>(), [second]);
        assert_eq!(holds.release_all().len(), 1);
        let third = holds.add("again", "uid 0", Timestamp(1), None).unwrap().id;
        assert!(third > second, "an id names one hold for ever");
    }

    #[test]
    fn tied_ones_end_with_what_they_are_tied_to() {
        let mut holds = Holds::default();
        let free = holds.add("upgrade", "uid 0", Timestamp(1), None).unwrap().id;
        let tied = holds.add("backup", "uid 0", Timestamp(1), None).unwrap().id;
        holds.tie(tied);
        let text = serde_json::to_string(&holds).unwrap();
        let mut again: Holds = serde_json::from_str(&text).unwrap();
        assert_eq!(again.release_tied().iter().map(|hold| hold.id).collect::<Vec<_>>(), [tied]);
        assert_eq!(again.blocking(Timestamp(2)).map(|hold| hold.id).collect::<Vec<_>>(), [free]);
        let older = text.replace(",\"tied\":true", "").replace(",\"tied\":false", "");
        assert!(serde_json::from_str::<Holds>(&older).unwrap().release_tied().is_empty());
    }

    #[test]
    fn there_is_a_limit() {
        let mut holds = Holds::default();
        for _ in 0..Holds::MAX {
            holds.add("x", "y", Timestamp(0), Some(Timestamp(10))).unwrap();
        }
        assert_eq!(holds.add("x", "y", Timestamp(9), None), Err(TooManyHolds));
        assert!(holds.add("x", "y", Timestamp(10), None).is_ok(), "expired ones make room");
    }

    proptest! {
        #[test]
        fn each_blocks_exactly_until_its_time(untils in prop::collection::vec(prop::option::of(1u64..100), 0..20), now in 0u64..120) {
            let mut holds = Holds::default();
            for until in &untils {
                holds.add("x", "y", Timestamp(0), until.map(Timestamp)).unwrap();
            }
            let due = holds.next_deadline();
            prop_assert_eq!(due.map(|t| t.0), untils.iter().flatten().min().copied());
            let blocking = untils.iter().filter(|u| u.is_none_or(|u| now < u)).count();
            prop_assert_eq!(holds.blocking(Timestamp(now)).count(), blocking);
            prop_assert_eq!(holds.expire(Timestamp(now)).len(), untils.len() - blocking);
            prop_assert_eq!(holds.blocking(Timestamp(0)).count(), blocking);
        }
    }
}
