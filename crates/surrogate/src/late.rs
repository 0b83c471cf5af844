//! Frames that come for a guest after it was given back.
//!
//! The bridge put them into the backlog of a processor before it was turned, and that processor
//! ran nothing of the kernel's for a while. No call of the kernel waits for these backlogs. Where
//! the frames are counted on the bridge port it is known when all have come; elsewhere the guest
//! gets what comes late, if it comes within [`LATEST`].

use std::time::{Duration, Instant};

use dormouse_net::Vlans;
use dormouse_sys::{Frame, PacketSocket};
use dormouse_types::{MacAddr, Timestamp};

use crate::vlan::{Delivery, Received};

/// How late a frame may be. On a host this busy a softirq thread waits for some 10 ms.
const LATEST: Duration = Duration::from_secs(1);

/// The way to a guest that was given back.
#[derive(Debug)]
pub(crate) struct Late {
    injector: PacketSocket,
    vlans: Option<Vlans>,
    until: Instant,
    passed: u64,
    lost: u64,
}

impl Late {
    /// From `now` on passes frames to the tap of `injector`.
    pub(crate) fn new(injector: PacketSocket, vlans: Option<Vlans>, now: Instant) -> Self {
        Self { injector, vlans, until: now + LATEST, passed: 0, lost: 0 }
    }

    /// Gives a frame to the guest.
    pub(crate) fn pass(&mut self, frame: &Frame<'_>) {
        // Nothing is judged any more, so that the time is of no matter.
        let received = Received::new(*frame, Timestamp::default(), None);
        let packet = match received.at(self.vlans.as_ref()) {
            Delivery::Frame(arrival) => arrival.packet(),
            Delivery::Elsewhere => return,
            Delivery::Cut => {
                self.lost += 1;
                return;
            }
        };
        match self.injector.send(packet.header(), packet.ethernet()) {
            Ok(()) => self.passed += 1,
            Err(_) => self.lost += 1,
        }
    }

    /// When it has been long enough.
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    /// Says what became of late frames; the socket is to be closed.
    pub(crate) fn end(self, mac: MacAddr) -> PacketSocket {
        if self.lost > 0 {
            tracing::warn!(%mac, passed = self.passed, lost = self.lost, "frames came too late for their guest");
        } else if self.passed > 0 {
            tracing::debug!(%mac, passed = self.passed, "frames came late, and were passed on");
        }
        self.injector
    }
}
