//! Numbered datagrams sent one by one, when a test says so.

use dormouse_lab::Client;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The guest's sink.
const SINK: u16 = 7777;

/// Sends to the guest's sink from the client.
#[derive(Debug)]
pub struct Numbered {
    socket: UdpSocket,
    next: u32,
}

impl Numbered {
    /// Sends to one guest, or to a broadcast address.
    ///
    /// # Panics
    ///
    /// When there is no route.
    #[track_caller]
    #[must_use]
    pub fn to(client: &Client, ip: impl Into<IpAddr>) -> Self {
        let to = SocketAddr::new(ip.into(), SINK);
        let open = || {
            let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.set_broadcast(true)?;
            socket.connect(to).map(|()| socket)
        };
        Self { socket: client.namespace().run(open).unwrap().unwrap(), next: 0 }
    }

    /// Sends the next number.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[track_caller]
    pub fn send(&mut self) {
        self.socket.send(&self.next.to_be_bytes()).unwrap();
        self.next += 1;
    }

    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next.into()
    }
}
