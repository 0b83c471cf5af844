//! What is asked of switches for one port: to whom frames go, and what is flooded.

use std::time::Duration;

use dormouse_net::{Flooding, Link, Vlans};

use super::{Bridge, Surrogate, without_queues};
use crate::{Error, HandoverKind, Port, Sleeper, release::Target};

/// By then every querier has asked: two of the default intervals of 125 s (RFC 3376, RFC 3810).
const ASKED: Duration = Duration::from_secs(260);

impl Surrogate {
    /// From now on the switch sends what is for the port's address to the surrogate.
    pub(super) async fn divert(
        &self,
        port: &Port,
        bridge: &Bridge,
        vlans: Option<&Vlans>,
    ) -> Result<(), Error> {
        let diverted = bridge.switch.divert(port.mac, vlans, bridge.pair.s0).await;
        diverted.map_err(Error::net(format!("turn {} on bridge {}", port.mac, port.bridge)))
    }

    /// From now on the switch sends it to the guest.
    async fn give(&self, port: &Port, bridge: &Bridge, tap: u32) -> Result<(), Error> {
        let vlans = self.vlans(port, bridge).await?;
        let given = bridge.switch.give(port.mac, vlans.as_ref(), tap).await;
        given.map_err(Error::net(format!("turn {} on bridge {}", port.mac, port.bridge)))
    }

    /// The VLANs that the guest's tap is in; as of any new port, if it is not there.
    pub(super) async fn vlans(&self, port: &Port, bridge: &Bridge) -> Result<Option<Vlans>, Error> {
        let tap = self.0.net.link(&port.tap).await.map_err(Error::net(format!("find tap {}", port.tap)))?;
        self.vlans_of(tap.as_ref(), bridge).await
    }

    /// The same of a tap that was looked for.
    pub(super) async fn vlans_of(&self, tap: Option<&Link>, bridge: &Bridge) -> Result<Option<Vlans>, Error> {
        let what = || format!("read the VLANs of a port of bridge {}", bridge.switch.name());
        let port = match tap {
            Some(tap) if bridge.switch.has(tap).await.map_err(Error::net(what()))? => Some(tap.index),
            _ => None,
        };
        bridge.switch.vlans(port).await.map_err(Error::net(what()))
    }

    /// Replays into one port and turns the bridge to it. `None`: it was not captured.
    pub(super) async fn replay(&self, port: &Port, bridge: &Bridge) -> Result<Option<HandoverKind>, Error> {
        let tap = self.index(port).await?;
        self.join(port, bridge, tap).await?;
        self.0.net.set_up(tap).await.map_err(Error::net(format!("set up {}", port.tap)))?;
        let vlans = self.vlans(port, bridge).await?;
        let turn = bridge.switch.turn(port.mac, vlans.as_ref(), tap);
        let turn = turn.map_err(Error::net(format!("turn {} on bridge {}", port.mac, port.bridge)))?;
        let target = Target { tap: port.tap.clone(), index: tap, queue: port.queue.clone(), turn };
        let (mac, patience) = (port.mac, self.0.settings.patience);
        let caught_up = bridge.thread.ask(move |worker| worker.release(mac, target, patience)).await?;
        let kind = match caught_up.map_err(Error::socket(&port.tap))? {
            Some(caught_up) => Some(caught_up.await.map_err(|_| bridge.thread.ended())?),
            None => None,
        };
        self.give(port, bridge, tap).await?;
        self.flood(port, bridge, Flooding::Woken).await?;
        Ok(kind)
    }

    pub(super) async fn dismiss_port(&self, port: &Port) -> Result<u64, Error> {
        let Some(bridge) = self.0.bridges().get(&port.bridge).cloned() else { return Ok(0) };
        let mac = port.mac;
        let dropped = bridge.thread.ask(move |worker| worker.dismiss(mac)).await?;
        bridge.unfollow(mac);
        let forgotten = bridge.switch.forget(mac, bridge.pair.s0).await;
        forgotten.map_err(Error::net(format!("forget {mac} on bridge {}", port.bridge)))?;
        Ok(dropped)
    }

    /// Makes a tap what it was before its guest was captured.
    pub(super) async fn put_back(&self, port: &Port) -> Result<(), Error> {
        let what = || format!("put {} back into bridge {}", port.tap, port.bridge);
        let tap = self.index(port).await?;
        let switch = self.0.net.switch(&port.bridge).await.map_err(Error::net(what()))?;
        switch.join(tap).await.map_err(Error::net(what()))?;
        switch.flood(tap, Flooding::Ordinary).await.map_err(Error::net(what()))?;
        self.0.net.set_up(tap).await.map_err(Error::net(what()))
    }

    /// Once the bridge knows a woken guest's memberships: multicast as for any guest.
    pub(super) fn ordinary_later(&self, sleeper: &Sleeper) {
        let (inner, sleeper) = (std::sync::Arc::downgrade(&self.0), without_queues(sleeper));
        tokio::spawn(async move {
            tokio::time::sleep(ASKED).await;
            let Some(surrogate) = inner.upgrade().map(Self) else { return };
            if surrogate.machine(&sleeper.name).is_some() {
                return;
            }
            for port in &sleeper.ports {
                let Ok(bridge) = surrogate.bridge(&port.bridge).await else { continue };
                if surrogate.flood(port, &bridge, Flooding::Ordinary).await.is_err() {
                    tracing::debug!(tap = port.tap, "a tap went away before it became ordinary");
                }
            }
        });
    }

    /// Sets what the bridge floods to a guest's tap.
    pub(super) async fn flood(&self, port: &Port, bridge: &Bridge, what: Flooding) -> Result<(), Error> {
        let tap = self.index(port).await?;
        let set = bridge.switch.flood(tap, what).await;
        set.map_err(Error::net(format!("set what bridge {} floods to {}", port.bridge, port.tap)))
    }

    /// Undoes what a capture does to a tap: its machine may have failed asleep, and an earlier
    /// process may have captured it, so that only the address was forgotten.
    pub(super) async fn open(&self, port: &Port) -> Result<(), Error> {
        let (bridge, tap) = (self.bridge(&port.bridge).await?, self.index(port).await?);
        self.flood(port, &bridge, Flooding::Ordinary).await?;
        self.0.net.set_up(tap).await.map_err(Error::net(format!("set up {}", port.tap)))
    }

    pub(super) async fn index(&self, port: &Port) -> Result<u32, Error> {
        self.0.net.index(&port.tap).await.map_err(Error::net(format!("find tap {}", port.tap)))
    }

    pub(super) async fn join(&self, port: &Port, bridge: &Bridge, tap: u32) -> Result<(), Error> {
        let joined = bridge.switch.join(tap).await;
        joined.map_err(Error::net(format!("put {} into bridge {}", port.tap, port.bridge)))
    }
}
