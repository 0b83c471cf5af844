//! The TCP connections of running guests, by a program of the kernel's on their taps, or by
//! listening to the headers of what they send.

mod ebpf;
mod sniff;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use dormouse_sys::packet::link_index;
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Flow, Followed, Persona};
use rustix::time::{ClockId, clock_gettime};

use crate::{FollowKind, bpf::Unavailable, error::chain};

/// Follows the connections of the guests of one bridge.
///
/// Its calls do not wait for the kernel, which takes some 10 ms with the lock of all network
/// interfaces to attach a program: a thread of its own does that.
#[derive(Debug)]
pub(crate) struct Flows {
    orders: Sender<Order>,
    /// Times that somebody began to be followed.
    begun: u64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Order {
    /// The guest's beginning with this number, by this tap.
    Follow(MacAddr, u64, String),
    Stop(MacAddr),
}

#[derive(Debug, Default)]
struct Shared {
    guests: Mutex<HashMap<MacAddr, Guest>>,
    /// For the guests that the kernel does not help with.
    sniff: Mutex<sniff::Taps>,
}

#[derive(Debug)]
struct Guest {
    /// The tap's index.
    tap: u32,
    /// The order that is to be carried out last.
    begun: u64,
    source: Source,
}

/// Where a guest's connections are to be read.
#[derive(Clone, Debug)]
enum Source {
    /// Nowhere yet; what is known from before.
    Known(Vec<Flow>),
    Ebpf(ebpf::View),
    Packets,
}

impl Flows {
    /// Follows nobody yet; does so in the way `kind`.
    pub(crate) fn new(kind: FollowKind) -> Self {
        let (orders, queue) = channel();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let ebpf = (kind == FollowKind::Ebpf).then(ebpf::Taps::default);
        let started = thread::Builder::new().name("follow".into()).spawn(move || theirs.serve(ebpf, &queue));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to follow connections");
        }
        Self { orders, begun: 0, shared }
    }

    /// Can connections be followed by eBPF here? Tried on the interface `port`.
    ///
    /// # Errors
    /// Why not, in words for `doctor`.
    pub(crate) fn probe(port: &str) -> Result<(), Unavailable> {
        ebpf::Taps::default().follow(MacAddr([0; 6]), port, &[])
    }

    /// Follows what the guest at `mac` sends by `tap`, until [`Flows::stop`] or the tap's end: also
    /// through its sleeps. Once more for the same: nothing changes; by another tap: its connections
    /// are what they were. Best called before the guest runs, for before Linux 6.6 the first time
    /// stops the tap for a moment.
    ///
    /// `known`: connections of an earlier daemon's time, as its persona has them, for a guest that
    /// goes on with them.
    pub(crate) fn follow(&mut self, mac: MacAddr, tap: &str, known: &[Flow]) {
        let index = match link_index(tap) {
            Ok(index) => index,
            Err(error) => return tracing::warn!(tap, %error, "connections are not followed"),
        };
        let mut guests = lock(&self.shared.guests);
        if guests.get(&mac).is_some_and(|guest| guest.tap == index) {
            return;
        }
        self.begun += 1;
        let source = guests.remove(&mac).map_or_else(|| Source::Known(known.to_vec()), |guest| guest.source);
        guests.insert(mac, Guest { tap: index, begun: self.begun, source });
        let _ = self.orders.send(Order::Follow(mac, self.begun, tap.to_owned()));
    }

    /// Its connections that it has not begun to close, those heard last first; at most
    /// [`Persona::MAX_FLOWS`].
    pub(crate) fn of(&mut self, mac: MacAddr) -> Vec<Flow> {
        let open = self.all_of(mac).into_iter().filter(|followed| !followed.closing);
        open.map(|followed| followed.flow).take(Persona::MAX_FLOWS).collect()
    }

    /// The same, and those that it has begun to close, as far as they are still remembered.
    pub(crate) fn all_of(&mut self, mac: MacAddr) -> Vec<Followed> {
        let source = lock(&self.shared.guests).get(&mac).map(|guest| guest.source.clone());
        let open = |flow| Followed { flow, closing: false };
        match source {
            None => Vec::new(),
            Some(Source::Known(flows)) => flows.into_iter().map(open).collect(),
            Some(Source::Ebpf(view)) => view.flows(),
            Some(Source::Packets) => lock(&self.shared.sniff).of(mac).unwrap_or_default(),
        }
    }

    /// Follows it no longer, and forgets its connections, as when it is switched off.
    pub(crate) fn stop(&mut self, mac: MacAddr) {
        if lock(&self.shared.guests).remove(&mac).is_some() {
            let _ = self.orders.send(Order::Stop(mac));
        }
    }
}

impl Shared {
    /// Does what is ordered, until nobody can order any more.
    fn serve(&self, mut ebpf: Option<ebpf::Taps>, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Follow(mac, begun, tap) => self.follow(ebpf.as_mut(), (mac, begun), &tap),
                Order::Stop(mac) => {
                    if let Some(taps) = &mut ebpf {
                        taps.stop(mac);
                    }
                    lock(&self.sniff).stop(mac);
                }
            }
        }
    }

    fn follow(&self, ebpf: Option<&mut ebpf::Taps>, (mac, begun): (MacAddr, u64), tap: &str) {
        let known = match lock(&self.guests).get(&mac) {
            Some(Guest { begun: last, source: Source::Known(known), .. }) if *last == begun => known.clone(),
            Some(Guest { begun: last, .. }) if *last == begun => Vec::new(),
            // Another order is to come.
            _ => return,
        };
        let source = ebpf.and_then(|taps| match taps.follow(mac, tap, &known) {
            Ok(()) => taps.view(mac).map(Source::Ebpf),
            Err(error) => {
                tracing::warn!(tap, error = chain(&error), "connections are not followed by eBPF");
                None
            }
        });
        let source = source.or_else(|| match lock(&self.sniff).follow(mac, tap, &known) {
            Ok(()) => Some(Source::Packets),
            Err(error) => {
                tracing::warn!(tap, error = chain(&error), "connections are not followed");
                None
            }
        });
        let mut guests = lock(&self.guests);
        let guest = guests.get_mut(&mac).filter(|guest| guest.begun == begun);
        if let (Some(source), Some(guest)) = (source, guest) {
            guest.source = source;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    Timestamp(nanos(ClockId::Realtime))
}

/// What a clock shows, in nanoseconds.
fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let [seconds, nanos] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or_default());
    seconds * 1_000_000_000 + nanos
}
