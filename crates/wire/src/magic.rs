//! Magic packets: six octets of ones, then an Ethernet address sixteen times.

use dormouse_types::MacAddr;

use crate::{
    frame::{Frame, ethertype},
    matching::destination_port,
    network::protocol,
};

/// The UDP ports that magic packets are sent to.
const PORTS: [u16; 3] = [0, 7, 9];
const SYNC: [u8; 6] = [0xff; 6];
const COPIES: usize = 16;

/// Is `frame` a magic packet for `mac`?
///
/// The pattern may stand anywhere in the payload (AMD, Magic Packet Technology, 1995). Taken are
/// EtherType 0x0842 and UDP to port 0, 7 or 9, sent to `mac` or to a group.
#[must_use]
pub fn is_magic(frame: &Frame<'_>, mac: MacAddr) -> bool {
    let reaches = frame.dst() == mac || frame.is_group();
    let carries = frame.ethertype() == ethertype::WAKE_ON_LAN
        || destination_port(frame, protocol::UDP).is_some_and(|port| PORTS.contains(&port));
    reaches && carries && names(frame.payload(), mac)
}

/// Does the pattern for `mac` stand anywhere in `bytes`?
fn names(bytes: &[u8], mac: MacAddr) -> bool {
    bytes.windows(SYNC.len() * (1 + COPIES)).any(|window| {
        let (sync, copies) = window.split_at(SYNC.len());
        sync == SYNC && copies.chunks_exact(SYNC.len()).all(|copy| copy == mac.0)
    })
}
