//! Listening to running guests: that they speak, by which addresses, and who they are.
//!
//! Until a guest is first heard the socket takes any frame that it sends; from then on only what
//! tells something of it, so that the traffic of a running guest costs a filter's run and no more.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use dormouse_sys::{
    Batch, PacketSocket,
    packet::{Error, Filter},
};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::{Cache, Frame, Persona, Way, learned};

use crate::Notice;

/// Octets of each frame that are looked at: a whole datagram of mDNS or DHCP.
const SNAP: u32 = 2048;
/// Receive buffer, in octets.
const BUFFER: u32 = 128 << 10;
/// Most addresses told of one port: a guest that makes them up is not believed for ever.
const MAX_ADDRESSES: usize = 64;
/// Batches that are read at a time; the rest waits for its turn.
const TURN: usize = 4;
/// Frames that something is learned from in each [`SPAN`]; more are read and forgotten, so that a guest
/// that announces without end does not keep the thread from its neighbours.
const LEARNED: u32 = 256;
const SPAN: Duration = Duration::from_secs(1);

/// One watched port.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) name: MachineName,
    pub(crate) mac: MacAddr,
    socket: PacketSocket,
    heard: bool,
    known: HashSet<IpAddr>,
    persona: Box<Persona>,
    allowance: Allowance,
}

/// How many frames are still learned from, and until when that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Allowance {
    left: u32,
    until: Timestamp,
}

impl Allowance {
    /// May one more be learned from? A clock that was put back begins another span.
    fn take(&mut self, now: Timestamp) -> bool {
        if now >= self.until || now + SPAN < self.until {
            *self = Self { left: LEARNED, until: now + SPAN };
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Watch {
    /// Listens to what `mac` sends by `tap`, and learns from there on that it was `persona`.
    pub(crate) fn open(name: MachineName, mac: MacAddr, tap: &str, persona: Persona) -> Result<Self, Error> {
        let socket = PacketSocket::open_sniff(tap, &Filter::speech(mac, SNAP), BUFFER)?;
        Ok(Self {
            name,
            mac,
            socket,
            heard: false,
            known: HashSet::new(),
            persona: Box::new(persona),
            allowance: Allowance::default(),
        })
    }

    /// What becomes readable when the guest has said something.
    pub(crate) const fn socket(&self) -> &PacketSocket {
        &self.socket
    }

    /// What is known of the guest; without its connections.
    pub(crate) const fn persona(&self) -> &Persona {
        &self.persona
    }

    /// Reads what waits.
    pub(crate) fn read(
        &mut self,
        batch: &mut Batch,
        now: Timestamp,
        mut tell: impl FnMut(Notice),
    ) -> Result<(), Error> {
        for _ in 0..TURN {
            if self.socket.receive(batch)? == 0 {
                break;
            }
            let addresses = self.learn(batch, now);
            let spoke = batch.frames().any(|frame| !frame.outgoing);
            if spoke && !std::mem::replace(&mut self.heard, true) {
                self.socket.set_filter(&Filter::persona(self.mac, SNAP))?;
                tell(Notice::Heard { name: self.name.clone() });
            }
            if !addresses.is_empty() {
                tell(Notice::Learned { name: self.name.clone(), mac: self.mac, addresses });
            }
        }
        Ok(())
    }

    /// The socket that it leaves.
    pub(crate) fn into_socket(self) -> PacketSocket {
        self.socket
    }

    /// Learns who the guest is; gives addresses that are new.
    fn learn(&mut self, batch: &Batch, now: Timestamp) -> Vec<IpAddr> {
        let mut new = Vec::new();
        for captured in batch.frames() {
            if !self.allowance.take(now) {
                break;
            }
            let cache = Cache::default();
            let Some(frame) = Frame::cached(captured.bytes, &cache) else { continue };
            let way = if captured.outgoing { Way::Received } else { Way::Sent };
            self.persona.learn(&frame, way, self.mac, now);
            for address in learned(&frame, self.mac).filter(|_| way == Way::Sent) {
                if self.known.len() < MAX_ADDRESSES && self.known.insert(address) {
                    new.push(address);
                }
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In no span is more learned than twice the allowance, and a guest that says little is heard.
        #[test]
        fn learning_is_rationed(pauses in prop::collection::vec(0_u64..20_000_000, 1..2000)) {
            let (mut allowance, mut now, mut taken) = (Allowance::default(), Timestamp(1), Vec::new());
            for pause in pauses {
                now = Timestamp(now.0 + pause);
                let may = allowance.take(now);
                let lately = taken.iter().filter(|at: &&Timestamp| now.since(**at) < SPAN).count();
                prop_assert!(may || lately >= LEARNED as usize);
                prop_assert!(lately < 2 * LEARNED as usize);
                taken.extend(may.then_some(now));
            }
        }

        #[test]
        fn a_clock_that_goes_back_stops_nothing(there in 0_u64..1 << 62, back in 0_u64..1 << 62) {
            let mut allowance = Allowance::default();
            while allowance.take(Timestamp(there)) {}
            prop_assert!(allowance.take(Timestamp(there + 1_000_000_000)));
            let gone = there + 1_000_000_000;
            while allowance.take(Timestamp(gone)) {}
            prop_assert!(back + 1_000_000_000 > gone || allowance.take(Timestamp(back)));
        }
    }
}
