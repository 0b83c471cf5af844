//! The connections of a bridge's guests, apart from its thread, which has no part in them.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dormouse_types::MacAddr;
use dormouse_wire::Flow;

use super::{Bridge, Surrogate};
use crate::{FollowKind, Port, flows::Flows};

/// Who is followed, and how.
#[derive(Debug)]
pub(super) struct Following(Mutex<Followed>);

#[derive(Debug)]
struct Followed {
    flows: Flows,
    guests: HashSet<MacAddr>,
}

impl Following {
    /// Nobody is followed yet.
    pub(super) fn new(kind: FollowKind) -> Self {
        Self(Mutex::new(Followed { flows: Flows::new(kind), guests: HashSet::new() }))
    }

    /// Never held for long: see [`Flows`].
    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surrogate {
    /// The TCP connections of a guest that is listened to, those heard last first; none are known of
    /// others. Those that it closed are among them for as long as they are remembered. Does not wait for
    /// anything.
    #[must_use]
    pub fn connections(&self, bridge: &str, mac: MacAddr) -> Vec<dormouse_wire::Followed> {
        let served = self.0.bridges().get(bridge).cloned();
        served.map(|bridge| bridge.following.lock().flows.all_of(mac)).unwrap_or_default()
    }
}

impl Bridge {
    /// Follows a guest's connections from now on, also through its sleeps.
    pub(super) fn follow(&self, port: &Port) {
        let mut followed = self.following.lock();
        followed.flows.follow(port.mac, &port.tap, &port.persona.flows);
        followed.guests.insert(port.mac);
    }

    /// Its connections; `None`: they are not followed.
    pub(super) fn flows_of(&self, mac: MacAddr) -> Option<Vec<Flow>> {
        let mut followed = self.following.lock();
        followed.guests.contains(&mac).then(|| followed.flows.of(mac))
    }

    /// Forgets them.
    pub(super) fn unfollow(&self, mac: MacAddr) {
        let mut followed = self.following.lock();
        if followed.guests.remove(&mac) {
            followed.flows.stop(mac);
        }
    }
}
