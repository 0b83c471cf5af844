//! The surrogate as the drivers see it, so that tests can put another in its place.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_surrogate::{Capabilities, Error, Port, Rehearsal, Replay, Sleeper, Status, Surrogate};
use dormouse_types::{MacAddr, MachineName};
use dormouse_wire::Followed;

/// Stands in for machines on the network. See [`Surrogate`] for what each call does.
#[async_trait]
pub trait Presence: Send + Sync {
    /// The guest runs: learn its addresses, and notice when it is first heard.
    async fn watch(&self, name: &MachineName, ports: &[Port]) -> Result<(), Error>;
    /// Hold every frame that comes for it; the guest still runs.
    async fn capture(&self, sleeper: &Sleeper) -> Result<(), Error>;
    /// Until the guest has read all that is in its taps.
    async fn drain(&self, sleeper: &Sleeper, grace: Duration) -> Result<(), Error>;
    /// The guest stands still: answer for it; why not on all its interfaces, if so.
    async fn stand_in(&self, sleeper: &Sleeper) -> Result<Option<Error>, Error>;
    /// Make its taps ready.
    async fn prepare(&self, sleeper: &Sleeper) -> Result<(), Error>;
    /// The guest runs: give it what was held, and its address back.
    async fn release(&self, sleeper: &Sleeper) -> Result<Replay, Error>;
    /// Forget it; how many frames were dropped.
    async fn dismiss(&self, name: &MachineName) -> Result<u64, Error>;
    /// Every sleeper is stood in for: forget what an earlier process left and nobody claims.
    async fn settle(&self) -> Result<usize, Error>;
    /// What would become of a frame that came now for the interface `mac` of a machine asleep.
    async fn rehearse(&self, sleeper: &Sleeper, mac: MacAddr, ethernet: &[u8]) -> Rehearsal;
    /// A machine's numbers, if it is captured.
    async fn status(&self, name: &MachineName) -> Option<Status>;
    /// The TCP connections of a running guest, as its frames on this bridge show them, also those that it
    /// closed a moment ago.
    async fn connections(&self, bridge: &str, mac: MacAddr) -> Vec<Followed>;
    /// What this host allows.
    async fn capabilities(&self) -> Capabilities;
}

#[async_trait]
impl Presence for Surrogate {
    async fn watch(&self, name: &MachineName, ports: &[Port]) -> Result<(), Error> {
        self.watch(name, ports).await
    }

    async fn capture(&self, sleeper: &Sleeper) -> Result<(), Error> {
        self.capture(sleeper).await
    }

    async fn drain(&self, sleeper: &Sleeper, grace: Duration) -> Result<(), Error> {
        self.drain(sleeper, grace).await
    }

    async fn stand_in(&self, sleeper: &Sleeper) -> Result<Option<Error>, Error> {
        self.stand_in(sleeper).await
    }

    async fn prepare(&self, sleeper: &Sleeper) -> Result<(), Error> {
        self.prepare(sleeper).await
    }

    async fn release(&self, sleeper: &Sleeper) -> Result<Replay, Error> {
        self.release(sleeper).await
    }

    async fn dismiss(&self, name: &MachineName) -> Result<u64, Error> {
        self.dismiss(name).await
    }

    async fn settle(&self) -> Result<usize, Error> {
        self.settle().await
    }

    async fn rehearse(&self, sleeper: &Sleeper, mac: MacAddr, ethernet: &[u8]) -> Rehearsal {
        self.rehearse(sleeper, mac, ethernet).await
    }

    async fn status(&self, name: &MachineName) -> Option<Status> {
        self.status(name).await
    }

    async fn connections(&self, bridge: &str, mac: MacAddr) -> Vec<Followed> {
        self.connections(bridge, mac)
    }

    async fn capabilities(&self) -> Capabilities {
        self.capabilities().clone()
    }
}
