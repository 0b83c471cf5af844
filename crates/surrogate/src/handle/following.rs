//! The connections of a bridge's guests, apart from its thread: to follow them can take the kernel's
//! lock of network interfaces, for which those who are answered for must not wait.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use dormouse_types::MacAddr;
use dormouse_wire::Flow;

use super::Bridge;
use crate::{FollowKind, Port, flows::Flows};

/// Who is followed, and how.
#[derive(Clone, Debug)]
pub(super) struct Following(Arc<Mutex<Followed>>);

#[derive(Debug)]
struct Followed {
    flows: Flows,
    guests: HashSet<MacAddr>,
}

impl Following {
    /// Nobody is followed yet.
    pub(super) fn new(kind: FollowKind) -> Self {
        Self(Arc::new(Mutex::new(Followed { flows: Flows::new(kind), guests: HashSet::new() })))
    }

    /// Does something that may wait for the kernel.
    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Followed) -> R + Send + 'static,
    ) -> Option<R> {
        let followed = self.0.clone();
        let run = move || job(&mut followed.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(run).await.ok()
    }

    fn has(&self, mac: MacAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).guests.contains(&mac)
    }
}

impl Bridge {
    /// Follows a guest's connections from now on, also through its sleeps.
    pub(super) async fn follow(&self, port: &Port) {
        let (mac, tap, known) = (port.mac, port.tap.clone(), port.persona.flows.clone());
        let follow = move |followed: &mut Followed| {
            followed.flows.follow(mac, &tap, &known);
            followed.guests.insert(mac);
        };
        self.following.run(follow).await;
    }

    /// Its connections; `None`: they are not followed.
    pub(super) async fn flows_of(&self, mac: MacAddr) -> Option<Vec<Flow>> {
        if !self.following.has(mac) {
            return None;
        }
        self.following.run(move |followed| followed.flows.of(mac)).await
    }

    /// Forgets them.
    pub(super) async fn unfollow(&self, mac: MacAddr) {
        if self.following.has(mac) {
            let stop = move |followed: &mut Followed| {
                followed.flows.stop(mac);
                followed.guests.remove(&mac);
            };
            self.following.run(stop).await;
        }
    }
}
