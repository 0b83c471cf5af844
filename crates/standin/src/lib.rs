//! TCP services that the stand-in speaks for a sleeper, on smoltcp's TCP.
//!
//! A state machine without I/O: frames and the time go in, frames and wakes come out. Memory is
//! taken when a client connects, bounded per machine, and given back when the last one has gone.
#![forbid(unsafe_code)]

use std::{net::IpAddr, sync::Arc};

use dormouse_types::{MacAddr, Service, Timestamp};
use dormouse_wire::Frame;

/// The services of one interface of a sleeper.
#[derive(Debug)]
pub struct Standin {
    _mac: MacAddr,
    _addresses: Arc<[IpAddr]>,
    _services: Arc<[Service]>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// Frames to send.
    pub frames: Vec<Vec<u8>>,
    /// The machine is wanted; why, as `tcp:80 GET / (waking-page)`.
    pub wake: Option<String>,
    /// The frame was taken. Else the stand-in has nothing to do with it.
    pub taken: bool,
}

impl Standin {
    /// Speaks `services` at `mac` and `addresses`.
    #[must_use]
    pub const fn new(mac: MacAddr, addresses: Arc<[IpAddr]>, services: Arc<[Service]>) -> Self {
        Self { _mac: mac, _addresses: addresses, _services: services }
    }

    /// Takes a frame, if it is of a service or of a connection here.
    pub fn take(&mut self, _frame: &Frame<'_>, _now: Timestamp) -> Out {
        Out::default()
    }

    /// When [`Standin::due`] is to be called next.
    #[must_use]
    pub const fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// What the passing of time brings: segments sent again, connections closed.
    pub fn due(&mut self, _now: Timestamp) -> Out {
        Out::default()
    }

    /// The machine runs, or the stand-in ends: what is to be sent to those still connected.
    pub fn end(&mut self, _now: Timestamp) -> Out {
        Out::default()
    }
}
