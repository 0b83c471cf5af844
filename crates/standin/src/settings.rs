//! Whom a stand-in speaks for.

use std::{fmt, net::IpAddr, sync::Arc};

use dormouse_types::{MacAddr, MachineName, Service};

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
