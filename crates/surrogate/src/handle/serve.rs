//! Bridges: served from when they are first needed until they go away.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError},
};

use dormouse_net::{LinkEvent, Net};
use dormouse_sys::PacketSocket;
use dormouse_wire::Scanners;

use super::{Bridge, Inner, Surrogate, following::Following};
use crate::{
    Capabilities, Error, FollowKind, HandoverKind, Notice, Port, Settings,
    asking::Asking,
    error::chain,
    flows::Flows,
    handover::{Ebpf, Handover, Plain},
    links::{self, Pair},
    table::Table,
    thread::Thread,
    worker::Worker,
};

impl Surrogate {
    /// All that are served.
    pub(super) fn bridges(&self) -> Vec<Arc<Bridge>> {
        self.0.bridges().values().cloned().collect()
    }

    /// The bridge's pair and thread, made when they are first needed.
    pub(super) async fn bridge(&self, name: &str) -> Result<Arc<Bridge>, Error> {
        if let Some(bridge) = self.0.bridges().get(name) {
            return Ok(bridge.clone());
        }
        let _setting_up = self.0.setting_up.lock().await;
        // Somebody else may have been first.
        if let Some(bridge) = self.0.bridges().get(name) {
            return Ok(bridge.clone());
        }
        let served = self.serve(name).await;
        if let Err(Error::Net { source, .. }) = &served
            && matches!(**source, dormouse_net::Error::NoBridge(_))
        {
            // Before the lock is given up, for which those who tell of bridges wait.
            self.0.missed().insert(name.to_owned());
        }
        let bridge = Arc::new(served?);
        self.0.missed().remove(name);
        self.0.bridges().insert(name.to_owned(), bridge.clone());
        Ok(bridge)
    }

    async fn serve(&self, name: &str) -> Result<Bridge, Error> {
        let settings = &self.0.settings;
        let switch = self.0.net.switch(name).await;
        let switch = switch.map_err(Error::net(format!("connect to bridge {name}")))?;
        let pair = links::ensure(&self.0.net, &settings.prefix, &switch).await?;
        let buffer = settings.receive_buffer;
        let socket = PacketSocket::open_receive(&pair.reader, buffer).map_err(Error::socket(&pair.reader))?;
        let (handover, notices) = (self.handover(&pair, &socket), self.0.notices.clone());
        let scanners = Scanners::new(settings.scan.clone());
        let mtu = u16::try_from(switch.mtu()).unwrap_or(u16::MAX);
        let thread = Thread::start(name, |jobs| {
            let table = Table::new(handover, scanners, notices, Asking::new(jobs.bell().clone()));
            Worker::new((name, mtu), socket, table, jobs)
        })?;
        let following = Following::new(self.0.capabilities.flows);
        Ok(Bridge { switch, pair, thread, following })
    }

    fn handover(&self, pair: &Pair, socket: &PacketSocket) -> Box<dyn Handover> {
        if self.0.capabilities.handover == HandoverKind::Plain {
            return Box::new(Plain);
        }
        match Ebpf::load(&pair.port, socket.has_marks()) {
            Ok(ebpf) => Box::new(ebpf),
            Err(error) => {
                tracing::warn!(
                    port = pair.port,
                    error = chain(&error),
                    "guests on this bridge are handed over the plain way"
                );
                Box::new(Plain)
            }
        }
    }

    /// Puts the taps of guests that were woken without their bridge into it, now that it is there.
    async fn plug_in(&self) {
        let missed = self.0.missed().clone();
        let is_back = |port: &mut Port| !missed.contains(&port.bridge);
        let back: Vec<Port> = self.0.unplugged().extract_if(.., is_back).collect();
        for port in back {
            // Whoever is asleep again is put back when it wakes.
            if !self.is_captured(port.mac)
                && let Err(error) = self.put_back(&port).await
            {
                tracing::warn!(tap = port.tap, error = chain(&error), "a guest stays without its bridge");
            }
        }
    }

    /// Tells when a bridge, or our port in it, goes away; it is set up anew when next needed.
    pub(super) fn watch_links(&self) -> Result<(), Error> {
        let mut monitor = Net::monitor().map_err(Error::net("watch network interfaces"))?;
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(event) = monitor.next().await {
                let Some(inner) = inner.upgrade() else { return };
                inner.link_changed(&event).await;
                Self(inner).plug_in().await;
            }
        });
        Ok(())
    }
}

impl Inner {
    async fn link_changed(&self, event: &LinkEvent) {
        let setting_up = self.setting_up.lock().await;
        let served: Vec<_> =
            self.bridges().iter().map(|(name, bridge)| (name.clone(), bridge.clone())).collect();
        for (name, bridge) in served {
            if concerns(&bridge, event)
                && let Some(why) = self.why_lost(&bridge).await
            {
                self.bridges().remove(&name);
                self.missed().insert(name.clone());
                let _ = self.notices.send(Notice::BridgeLost { bridge: name, why });
            }
        }
        drop(setting_up);
        self.look_for_missed().await;
    }

    /// Tells of missed bridges that are there. Cheap, for hardly ever is one missed.
    async fn look_for_missed(&self) {
        let missed: Vec<String> = self.missed().iter().cloned().collect();
        for bridge in missed {
            if self.net.switch(&bridge).await.is_ok() && self.missed().remove(&bridge) {
                let _ = self.notices.send(Notice::BridgeBack { bridge });
            }
        }
    }

    pub(super) fn bridges(&self) -> MutexGuard<'_, HashMap<String, Arc<Bridge>>> {
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unplugged(&self) -> MutexGuard<'_, Vec<Port>> {
        self.unplugged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for itself: an event tells how things were.
    async fn why_lost(&self, bridge: &Bridge) -> Option<String> {
        let pair = &bridge.pair;
        let link = match self.net.link_by_index(pair.s0).await {
            Ok(Some(link)) => link,
            Ok(None) => return Some(format!("{} was deleted", pair.port)),
            Err(error) => return doubtful(pair, &error),
        };
        match bridge.switch.has(&link).await {
            Ok(true) => None,
            Ok(false) => Some(format!("{} was taken out of the bridge", link.name)),
            Err(error) => doubtful(pair, &error),
        }
    }
}

fn doubtful(pair: &Pair, error: &dormouse_net::Error) -> Option<String> {
    tracing::warn!(port = pair.port, error = chain(error), "cannot look at our bridge port");
    None
}

fn concerns(bridge: &Bridge, event: &LinkEvent) -> bool {
    match event {
        LinkEvent::Deleted { index, .. } => *index == bridge.switch.index() || *index == bridge.pair.s0,
        LinkEvent::Changed(link) => link.index == bridge.pair.s0,
        LinkEvent::Missed => true,
    }
}

/// Refuses settings that cannot work.
pub(super) fn check(settings: &Settings) -> Result<(), Error> {
    let prefix = &settings.prefix;
    let ok = (1..=4).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_alphanumeric());
    let allowed = "1 to 4 letters or digits";
    if ok { Ok(()) } else { Err(Error::Setting { key: "prefix", value: prefix.clone(), allowed }) }
}

/// Octets that nobody can guess.
pub(super) fn secret() -> Result<[u8; 16], Error> {
    let mut secret = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut secret, flags).map_err(|errno| Error::Random(errno.into()))?;
    Ok(secret)
}

/// Tries on a pair of interfaces made for this what eBPF can do.
pub(super) async fn probe(net: &Net, settings: &Settings) -> Result<Capabilities, Error> {
    if settings.plain_handover {
        let why = Err("it is switched off in the settings".to_owned());
        return Ok(capabilities(why.clone(), why));
    }
    let names = [format!("{}p0", settings.prefix), format!("{}p1", settings.prefix)];
    let [port, reader] = &names;
    let what = "try what the kernel can do";
    net.delete_link(port).await.map_err(Error::net(what))?;
    net.create_veth(port, reader).await.map_err(Error::net(what))?;
    let tried = PacketSocket::open_receive(reader, 1 << 16)
        .map_err(Error::socket(reader))
        .map(|socket| Ebpf::load(port, socket.has_marks()).map(drop).map_err(|error| chain(&error)));
    let followed = Flows::probe(port).map_err(|error| chain(&error));
    net.delete_link(port).await.map_err(Error::net(what))?;
    Ok(capabilities(tried?, followed))
}

/// What there is, from what was tried, and why not.
fn capabilities(handover: Result<(), String>, flows: Result<(), String>) -> Capabilities {
    Capabilities {
        handover: if handover.is_ok() { HandoverKind::Ebpf } else { HandoverKind::Plain },
        obstacle: handover.err(),
        flows: if flows.is_ok() { FollowKind::Ebpf } else { FollowKind::Packets },
        flows_obstacle: flows.err(),
    }
}
