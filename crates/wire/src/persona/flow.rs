//! A TCP connection, as far as answering its keepalive probes needs it.

use core::net::SocketAddr;

use dormouse_types::Timestamp;
use serde::{Deserialize, Serialize};

/// The last state that a machine showed of one of its TCP connections (RFC 9293 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The machine's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The next sequence number that the machine will send (SND.NXT).
    pub snd_nxt: u32,
    /// The next one that it expects: what it last acknowledged (RCV.NXT).
    pub rcv_nxt: u32,
    /// The window that it last advertised, as on the wire, not scaled.
    pub window: u16,
    /// Its last timestamp value (TSval, RFC 7323); `None` without the option.
    pub tsval: Option<u32>,
    /// When it was last heard of.
    pub heard: Timestamp,
}
