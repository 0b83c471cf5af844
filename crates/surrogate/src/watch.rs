//! Listening to running guests: that they speak, and by which addresses.
//!
//! Until a guest is first heard the socket takes any frame that it sends; from then on only what
//! tells addresses, so that the traffic of a running guest costs a filter's run and no more.

use std::{collections::HashSet, net::IpAddr};

use dormouse_sys::{
    Batch, PacketSocket,
    packet::{Direction, Error, Filter},
};
use dormouse_types::{MacAddr, MachineName};
use dormouse_wire::{Frame, learned};

use crate::Notice;

/// Octets of each frame that are looked at: ARP and neighbour discovery fit.
const SNAP: u32 = 256;
/// Receive buffer, in octets.
const BUFFER: u32 = 64 << 10;
/// Most addresses told of one port: a guest that makes them up is not believed for ever.
const MAX_ADDRESSES: usize = 64;

/// One watched port.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) name: MachineName,
    pub(crate) mac: MacAddr,
    tap: String,
    socket: PacketSocket,
    heard: bool,
    known: HashSet<IpAddr>,
}

impl Watch {
    /// Listens to what `mac` sends by `tap`.
    pub(crate) fn open(name: MachineName, mac: MacAddr, tap: &str) -> Result<Self, Error> {
        let filter = Filter::from(mac, Direction::Incoming, SNAP);
        let socket = PacketSocket::open_sniff(tap, &filter, BUFFER)?;
        Ok(Self { name, mac, tap: tap.to_owned(), socket, heard: false, known: HashSet::new() })
    }

    /// What becomes readable when the guest has said something.
    pub(crate) const fn socket(&self) -> &PacketSocket {
        &self.socket
    }

    /// Reads what waits. If [`Watch::socket`] is another one now: the one that it was.
    pub(crate) fn read(
        &mut self,
        batch: &mut Batch,
        mut tell: impl FnMut(Notice),
    ) -> Result<Option<PacketSocket>, Error> {
        if self.socket.receive(batch)? == 0 {
            return Ok(None);
        }
        let addresses = self.new_addresses(batch);
        let first = !std::mem::replace(&mut self.heard, true);
        if first {
            tell(Notice::Heard { name: self.name.clone() });
        }
        if !addresses.is_empty() {
            tell(Notice::Learned { name: self.name.clone(), mac: self.mac, addresses });
        }
        if !first {
            return Ok(None);
        }
        let filter = Filter::addresses(self.mac, Direction::Incoming, SNAP);
        let narrow = PacketSocket::open_sniff(&self.tap, &filter, BUFFER)?;
        Ok(Some(std::mem::replace(&mut self.socket, narrow)))
    }

    /// The socket that it leaves.
    pub(crate) fn into_socket(self) -> PacketSocket {
        self.socket
    }

    fn new_addresses(&mut self, batch: &Batch) -> Vec<IpAddr> {
        let mut new = Vec::new();
        for frame in batch.frames() {
            let Some(frame) = Frame::new(frame.bytes) else { continue };
            for address in learned(&frame, self.mac) {
                if self.known.len() < MAX_ADDRESSES && self.known.insert(address) {
                    new.push(address);
                }
            }
        }
        new
    }
}
