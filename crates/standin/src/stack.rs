//! smoltcp for one connection.
//!
//! Each has an interface of its own, which has seen nothing but this connection's segments: it can
//! answer for nothing else, and its random numbers are those of this connection alone.

use std::{fmt, hash::Hasher, mem, net::IpAddr};

use dormouse_types::{MacAddr, Timestamp};
use siphasher::sip::SipHasher24;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant,
    wire::{HardwareAddress, IpCidr, IpListenEndpoint},
};

use crate::{
    Settings,
    segment::{Segment, Tuple},
};

/// Octets of each of a connection's two buffers: the page is sent in one piece, and a window of
/// this size takes the head of a usual request.
pub(crate) const BUFFER: usize = 4096;

/// One connection's stack.
pub(crate) struct Stack {
    interface: Interface,
    link: Link,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Stack {
    /// A stack that takes the connection which `segment` begins.
    pub(crate) fn new(segment: &Segment<'_>, settings: &Settings, now: Timestamp) -> Option<Self> {
        let mut link = Link::new(settings);
        let interface = interface(&segment.tuple, settings, &mut link, now);
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // What is said is said in one piece, and what is heard is answered at once.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let (address, port) = segment.tuple.local;
        socket.listen(IpListenEndpoint { addr: Some(address.into()), port }).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Some(Self { interface, link, sockets, socket })
    }

    /// The answer to a segment of a connection that there is not (any more), if it gets one: a
    /// reset (RFC 9293 §3.10.7.1).
    pub(crate) fn refuse(segment: &Segment<'_>, settings: &Settings, now: Timestamp) -> Vec<Vec<u8>> {
        let mut link = Link::new(settings);
        let mut interface = interface(&segment.tuple, settings, &mut link, now);
        link.take(segment);
        interface.poll(instant(now), &mut link, &mut SocketSet::new(Vec::new()));
        link.sent
    }

    /// Lets it see a segment, at the next [`Stack::poll`].
    pub(crate) fn take(&mut self, segment: &Segment<'_>) {
        self.link.take(segment);
    }

    /// Does all that there is to do now.
    pub(crate) fn poll(&mut self, now: Timestamp) {
        self.interface.poll(instant(now), &mut self.link, &mut self.sockets);
    }

    /// When it is to be polled next.
    pub(crate) fn deadline(&mut self, now: Timestamp) -> Option<Timestamp> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Timestamp(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000)))
    }

    /// The frames to send.
    pub(crate) fn sent(&mut self) -> Vec<Vec<u8>> {
        mem::take(&mut self.link.sent)
    }

    pub(crate) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Octets written and not yet acknowledged by the client.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sockets.get::<tcp::Socket<'_>>(self.socket).send_queue()
    }

    pub(crate) fn state(&self) -> tcp::State {
        self.sockets.get::<tcp::Socket<'_>>(self.socket).state()
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// An interface that has the sleeper's address and reaches everybody.
fn interface(tuple: &Tuple, settings: &Settings, link: &mut Link, now: Timestamp) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed(tuple, settings, now);
    let mut interface = Interface::new(config, link, instant(now));
    let address = tuple.local.0;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    interface.update_ip_addrs(|addresses| {
        // The first of them finds room.
        let _ = addresses.push(IpCidr::new(address.into(), bits));
    });
    // An IP link has no gateway, but smoltcp wants a route. The first one finds room.
    let _ = match address {
        IpAddr::V4(v4) => interface.routes_mut().add_default_ipv4_route(v4).map(drop),
        IpAddr::V6(v6) => interface.routes_mut().add_default_ipv6_route(v6).map(drop),
    };
    interface
}

/// What the first sequence number is made of: a keyed hash of the connection's addresses and ports
/// and of the time (RFC 6528 §3; SipHash-2-4 is its F). Who knows other connections' numbers, or
/// earlier ones of this one, learns nothing by them.
fn seed(tuple: &Tuple, settings: &Settings, now: Timestamp) -> u64 {
    let mut hash = SipHasher24::new_with_key(&settings.secret);
    for (address, port) in [tuple.client, tuple.local] {
        match address {
            IpAddr::V4(v4) => hash.write(&v4.octets()),
            IpAddr::V6(v6) => hash.write(&v6.octets()),
        }
        hash.write_u16(port);
    }
    hash.write_u64(now.0);
    hash.finish()
}

fn instant(now: Timestamp) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// An IP link over the client's frames.
struct Link {
    mtu: usize,
    mac: MacAddr,
    /// The Ethernet header of all that is sent: to where the last segment came from.
    header: Vec<u8>,
    received: Option<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Link {
    fn new(settings: &Settings) -> Self {
        let mtu = usize::from(settings.mtu.max(MIN_MTU));
        Self { mtu, mac: settings.mac, header: Vec::new(), received: None, sent: Vec::new() }
    }

    fn take(&mut self, segment: &Segment<'_>) {
        self.header.clear();
        self.header.extend_from_slice(&segment.client.0);
        self.header.extend_from_slice(&self.mac.0);
        self.header.extend_from_slice(segment.tags);
        self.header.extend_from_slice(&segment.ethertype.to_be_bytes());
        self.received = Some(segment.packet.to_vec());
    }
}

/// The least that every link carries (IPv6: RFC 8200 §5); below, no segment would have room.
const MIN_MTU: u16 = 1280;

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Sending(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Frames of clients on this host have no checksum yet: an interface would have filled it in.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}

/// A packet to smoltcp.
struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for a packet from smoltcp.
struct Sending<'a>(&'a mut Link);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let header = self.0.header.len();
        let mut frame = Vec::with_capacity(header + len);
        frame.extend_from_slice(&self.0.header);
        frame.resize(header + len, 0);
        let done = fill(frame.split_at_mut(header).1);
        self.0.sent.push(frame);
        done
    }
}
