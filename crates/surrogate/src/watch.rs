//! Listening to running guests: that they speak, by which addresses, and who they are.
//!
//! Until a guest is first heard the socket takes any frame that it sends; from then on only what
//! tells something of it, so that the traffic of a running guest costs a filter's run and no more.

use std::{collections::HashSet, net::IpAddr};

use dormouse_sys::{
    Batch, PacketSocket,
    packet::{Error, Filter},
};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::{Frame, Persona, Way, learned};

use crate::Notice;

/// Octets of each frame that are looked at: a whole datagram of mDNS or DHCP.
const SNAP: u32 = 2048;
/// Receive buffer, in octets.
const BUFFER: u32 = 128 << 10;
/// Most addresses told of one port: a guest that makes them up is not believed for ever.
const MAX_ADDRESSES: usize = 64;
/// Batches that are read at a time; the rest waits for its turn.
const TURN: usize = 4;

/// One watched port.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) name: MachineName,
    pub(crate) mac: MacAddr,
    socket: PacketSocket,
    heard: bool,
    known: HashSet<IpAddr>,
    persona: Box<Persona>,
}

impl Watch {
    /// Listens to what `mac` sends by `tap`, and learns from there on that it was `persona`.
    pub(crate) fn open(name: MachineName, mac: MacAddr, tap: &str, persona: Persona) -> Result<Self, Error> {
        let socket = PacketSocket::open_sniff(tap, &Filter::speech(mac, SNAP), BUFFER)?;
        Ok(Self { name, mac, socket, heard: false, known: HashSet::new(), persona: Box::new(persona) })
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
            let Some(frame) = Frame::new(captured.bytes) else { continue };
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
