//! TCP services that the stand-in speaks for a sleeper, on smoltcp's TCP.
//!
//! A state machine without I/O: frames and the time go in, frames and wakes come out. Memory is
//! taken when a client connects, bounded per machine, and given back when the last one has gone.
#![forbid(unsafe_code)]

use std::{fmt, net::IpAddr, sync::Arc};

use dormouse_types::{MacAddr, MachineName, Service, Timestamp};
use dormouse_wire::Frame;

/// Whom it speaks for, and what.
#[derive(Clone)]
pub struct Settings {
    /// The sleeper's name, which its page shows.
    pub name: MachineName,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its IP addresses; without one there are no services.
    pub addresses: Arc<[IpAddr]>,
    /// What is spoken for it.
    pub services: Arc<[Service]>,
    /// The bridge's MTU, in octets.
    pub mtu: u16,
    /// Random octets, a secret: first sequence numbers are derived from them (RFC 6528).
    pub secret: [u8; 16],
}

/// The services of one interface of a sleeper.
#[derive(Debug)]
pub struct Standin {
    _settings: Settings,
}

impl fmt::Debug for Settings {
    /// All but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("mac", &self.mac)
            .field("addresses", &self.addresses)
            .field("services", &self.services)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
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
    /// Speaks for a sleeper. Takes no memory for connections before there are any.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { _settings: settings }
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
