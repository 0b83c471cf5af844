//! Keeping a sleeper's DHCP lease (RFC 2131 §4.4.5): a state machine without I/O.
//!
//! ```text
//!   since      T1                       T2             half of the rest      end
//!     |  quiet  |  ask the server alone  |  ask anybody     | wake            |
//! ```
//!
//! It stands on the lease and the clock alone, so that a daemon that was restarted goes on where
//! the time says. What it does keeps one thing true for the guest: however long it slept, at waking
//! its lease lasts for at least as long as the guest's own clock, which stood still, lets it believe.

use core::time::Duration;

use dormouse_types::{LeasePolicy, MacAddr, Timestamp};
use smoltcp::wire::DhcpMessageType as Kind;

use crate::{
    dhcp::{self, Message},
    frame::Frame,
    persona::Lease,
    proxy::{Deed, Outcome},
    respond::Identity,
};

/// The least time between two requests (RFC 2131 §4.4.5).
const RETRY: Duration = Duration::from_secs(60);

/// The least time from an acknowledgement to the next request, whatever T1 the server gives: none can
/// make us ask as fast as it answers.
const PAUSE: Duration = Duration::from_secs(5);

/// The renewal of one lease, which is handed to each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    policy: LeasePolicy,
    next: Option<Timestamp>,
    exchange: Option<Exchange>,
}

/// Requests that were not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exchange {
    xid: u32,
    /// When the first was sent.
    begun: Timestamp,
    /// When the last was sent.
    asked: Timestamp,
}

impl Renewal {
    /// The word for it in counters, as a responder's name.
    pub const NAME: &'static str = "dhcp";

    /// Begins to keep `lease` for `who`. `None` if there is nothing to do: by policy, because it
    /// lasts for ever, or because `who` does not have its address (a machine that was given a
    /// fixed one).
    #[must_use]
    pub fn new(lease: &Lease, policy: LeasePolicy, who: &Identity, now: Timestamp) -> Option<Self> {
        let kept = policy != LeasePolicy::Ignore && lease.seconds != u32::MAX && who.has(lease.address);
        let next = Some(lease.after(lease.renew).max(now));
        kept.then_some(Self { policy, next, exchange: None })
    }

    /// When [`Renewal::due`] is to be called next; `None`: the machine is awaited.
    #[must_use]
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.next
    }

    /// What is to be done at `now`, once the deadline has come.
    pub fn due(&mut self, lease: &Lease, who: &Identity, now: Timestamp) -> Option<Deed> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        let [renew, rebind, last] = [lease.after(lease.renew), lease.after(lease.rebind), last_call(lease)];
        if now < renew {
            self.next = Some(renew);
            return None;
        }
        if self.policy == LeasePolicy::Wake {
            return Some(self.give_up("dhcp: the lease is due for renewal"));
        }
        if now >= last {
            return Some(self.give_up("dhcp: no server renewed the lease"));
        }
        let alone = now < rebind;
        let until = if alone { rebind } else { lease.after(lease.seconds) };
        let retry = now + (until.since(now) / 2).max(RETRY);
        self.next = Some(retry.min(if alone { rebind } else { last }));
        self.request(lease, who.mac, alone, now)
    }

    /// Wakes the machine, and leaves the rest to it.
    fn give_up(&mut self, why: &'static str) -> Deed {
        (self.next, self.exchange) = (None, None);
        Deed::Wake(why)
    }

    fn request(&mut self, lease: &Lease, mac: MacAddr, alone: bool, now: Timestamp) -> Option<Deed> {
        let begun = self.exchange.map_or(now, |exchange| exchange.begun);
        let xid = self.exchange.map_or_else(|| dhcp::transaction(mac, now), |exchange| exchange.xid);
        self.exchange = Some(Exchange { xid, begun, asked: now });
        let secs = u16::try_from(now.since(begun).as_secs()).unwrap_or(u16::MAX);
        let (word, server) = if alone {
            ("dhcp-renew", Some((lease.server_mac, lease.server)))
        } else {
            ("dhcp-rebind", None)
        };
        Some(Deed::Send(word, dhcp::request(mac, lease, server, xid, secs)?))
    }

    /// What a frame means that answers a request of ours; `None` for all others. A lease that was
    /// renewed is written to `lease`.
    pub fn take(&mut self, lease: &mut Lease, frame: &Frame<'_>, who: &Identity) -> Option<Outcome> {
        let Exchange { xid, asked, .. } = self.exchange?;
        if frame.dst() != who.mac && frame.dst() != MacAddr::BROADCAST {
            return None;
        }
        let answer = Message::from_server(frame, who.mac).filter(|answer| answer.xid() == xid)?;
        let wake = match (answer.kind, answer.grant()) {
            (Kind::Nak, _) => "dhcp: the server refused to renew the lease",
            (_, Some(grant)) if grant.address == lease.address => {
                // From the instant in which it was asked for: the server counts from a later one.
                lease.since = asked;
                (lease.seconds, lease.renew, lease.rebind) = (grant.seconds, grant.renew, grant.rebind);
                (lease.server, lease.server_mac) = (grant.server, frame.src());
                self.exchange = None;
                let next = lease.after(lease.renew).max(asked + PAUSE);
                self.next = Some(next).filter(|_| lease.seconds != u32::MAX);
                return Some(Outcome::Consume("the sleeper's lease is renewed"));
            }
            (_, Some(_)) => "dhcp: the server gives another address",
            (_, None) => return Some(Outcome::Consume("it answers no renewal")),
        };
        self.give_up(wake);
        Some(Outcome::Wake(wake))
    }
}

/// When the machine is woken to find a server itself: half of the time from T2 to the end.
fn last_call(lease: &Lease) -> Timestamp {
    lease.after(lease.rebind + (lease.seconds.saturating_sub(lease.rebind)) / 2)
}
