//! The TCP connections of running guests, by a program of the kernel's on their taps, or by
//! listening to the headers of what they send.

use dormouse_types::MacAddr;
use dormouse_wire::Flow;

/// Follows the connections of the guests of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Flows {}

impl Flows {
    /// Follows what the guest at `mac` sends by `tap`, until [`Flows::stop`] or the tap's end.
    /// Once more for the same: nothing changes.
    pub(crate) fn follow(&mut self, _mac: MacAddr, _tap: &str) {}

    /// Its connections that are established and that neither side has begun to close, those heard
    /// last first; at most [`dormouse_wire::Persona::MAX_FLOWS`].
    pub(crate) fn of(&mut self, _mac: MacAddr) -> Vec<Flow> {
        Vec::new()
    }

    /// Follows it no longer, and forgets its connections.
    pub(crate) fn stop(&mut self, _mac: MacAddr) {}
}
