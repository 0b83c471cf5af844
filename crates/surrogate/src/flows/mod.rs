//! The TCP connections of running guests, by a program of the kernel's on their taps, or by
//! listening to the headers of what they send.

mod ebpf;
mod sniff;
mod table;
#[cfg(test)]
mod tests;

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Flow, Persona};
use rustix::time::{ClockId, clock_gettime};

use crate::{FollowKind, bpf::Unavailable, error::chain};

/// Follows the connections of the guests of one bridge.
///
/// Its calls may wait for the kernel's lock of network interfaces.
#[derive(Debug)]
pub(crate) struct Flows {
    /// `None`: not to be used.
    ebpf: Option<ebpf::Taps>,
    /// For the guests that the kernel does not help with.
    sniff: sniff::Taps,
}

impl Flows {
    /// Follows nobody yet; does so in the way `kind`.
    pub(crate) fn new(kind: FollowKind) -> Self {
        Self { ebpf: (kind == FollowKind::Ebpf).then(ebpf::Taps::default), sniff: sniff::Taps::default() }
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
        if let Some(ebpf) = &mut self.ebpf {
            match ebpf.follow(mac, tap, known) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(tap, error = chain(&error), "connections are not followed by eBPF");
                }
            }
        }
        if let Err(error) = self.sniff.follow(mac, tap, known) {
            tracing::warn!(tap, error = chain(&error), "connections are not followed");
        }
    }

    /// Its connections that it has not begun to close, those heard last first; at most
    /// [`Persona::MAX_FLOWS`].
    pub(crate) fn of(&mut self, mac: MacAddr) -> Vec<Flow> {
        let flows = self.ebpf.as_ref().and_then(|taps| taps.of(mac));
        let mut flows = flows.or_else(|| self.sniff.of(mac)).unwrap_or_default();
        flows.truncate(Persona::MAX_FLOWS);
        flows
    }

    /// Follows it no longer, and forgets its connections, as when it is switched off.
    pub(crate) fn stop(&mut self, mac: MacAddr) {
        if let Some(taps) = &mut self.ebpf {
            taps.stop(mac);
        }
        self.sniff.stop(mac);
    }
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
