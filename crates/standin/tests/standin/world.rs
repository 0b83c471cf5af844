//! A client, a stand-in and a bad link between them, in simulated time.

use dormouse_standin::{Out, Standin};
use dormouse_types::{Service, Timestamp};
use dormouse_wire::{Frame, Network};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::{Duration, Instant},
    wire::{HardwareAddress, IpCidr, TcpPacket},
};

use crate::raw::{CLIENT, MTU, SLEEPER, START, address, standin};

/// A client that hears nothing for so long is at its end. The stand-in gives up earlier.
const GIVES_UP: Duration = Duration::from_secs(120);

/// What the link does to frames. It never loses two running in one direction, so that whoever
/// tries again gets through in time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) seed: u64,
    /// Of 100 frames.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Milliseconds by which a frame may be late.
    pub(crate) jitter: u64,
    /// VLAN tags of the client's frames.
    pub(crate) tags: &'static [u8],
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) standin: Standin,
    pub(crate) wakes: Vec<(Timestamp, String)>,
    link: Link,
    running: [u32; 2],
    flight: Vec<(Timestamp, bool, Vec<u8>)>,
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    v6: bool,
    ports: u16,
    ended: bool,
    /// The client's ports whose connections were reset.
    pub(crate) resets: Vec<u16>,
}

/// What a client does: sends this, and closes when it has said all, or when the other side has.
pub(crate) struct Client {
    handle: SocketHandle,
    say: Vec<u8>,
    said: usize,
    closes_first: bool,
    pub(crate) heard: Vec<u8>,
}

impl World {
    pub(crate) fn new(services: &[Service], v6: bool, link: Link) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = link.seed;
        let mut interface = Interface::new(config, &mut wire, instant(START));
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(address(v6, 1).into(), if v6 { 64 } else { 24 })).unwrap()
        });
        Self {
            now: START,
            standin: standin(services),
            wakes: Vec::new(),
            link,
            running: [0; 2],
            flight: Vec::new(),
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            v6,
            ports: 40_000,
            ended: false,
            resets: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, port: u16, say: &[u8], closes_first: bool) -> Client {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16_384]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // smoltcp forgets its FIN where only that is missing and three acknowledgements of the same come: like any
        // other client, it gives up in the end.
        socket.set_timeout(Some(GIVES_UP));
        self.ports += 1;
        socket.connect(self.interface.context(), (address(self.v6, 2), port), self.ports).unwrap();
        let handle = self.sockets.add(socket);
        Client { handle, say: say.to_vec(), said: 0, closes_first, heard: Vec::new() }
    }

    pub(crate) fn state(&self, client: &Client) -> tcp::State {
        self.sockets.get::<tcp::Socket<'_>>(client.handle).state()
    }

    /// Goes on until nothing happens any more, or until `until` says so; `false` after ten minutes.
    pub(crate) fn run(&mut self, clients: &mut [Client], until: impl Fn(&Self) -> bool) -> bool {
        let end = Timestamp(self.now.0 + 600_000_000_000);
        while self.now < end {
            for client in &mut *clients {
                self.speak(client);
            }
            self.interface.poll(instant(self.now), &mut self.wire, &mut self.sockets);
            for client in &mut *clients {
                self.listen(client);
            }
            self.interface.poll(instant(self.now), &mut self.wire, &mut self.sockets);
            for packet in std::mem::take(&mut self.wire.sent) {
                let frame = self.frame(&packet);
                self.launch(false, frame);
            }
            if until(self) {
                return true;
            }
            let Some(next) = self.next() else { return true };
            self.now = self.now.max(next);
            self.arrive();
            if self.standin.deadline().is_some_and(|at| at <= self.now) {
                let out = self.standin.due(self.now);
                assert!(self.standin.deadline().is_none_or(|at| at > self.now), "a deadline that stays");
                self.take(out);
            }
        }
        false
    }

    /// Ends the stand-in, as when the machine runs, and delivers what it says.
    pub(crate) fn end(&mut self, clients: &mut [Client]) {
        let out = self.standin.end(self.now);
        self.ended = true;
        self.take(out);
        assert_eq!(self.standin.deadline(), None);
        let empty = |world: &Self| world.flight.is_empty();
        self.run(clients, empty);
    }

    fn next(&mut self) -> Option<Timestamp> {
        let polled = self.interface.poll_at(instant(self.now), &self.sockets);
        let polled = polled.map(|at| Timestamp(u64::try_from(at.total_micros()).unwrap() * 1000));
        let flying = self.flight.iter().map(|(at, ..)| *at).min();
        [polled, flying, self.standin.deadline()].into_iter().flatten().min()
    }

    fn speak(&mut self, client: &mut Client) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(client.handle);
        if socket.may_send() {
            client.said += socket.send_slice(&client.say[client.said..]).unwrap();
            if client.said == client.say.len() && client.closes_first {
                socket.close();
            }
        }
    }

    fn listen(&mut self, client: &mut Client) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(client.handle);
        while socket.can_recv() {
            let heard = socket.recv(|octets| (octets.len(), octets.to_vec())).unwrap();
            client.heard.extend(heard);
        }
        if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let ethertype: &[u8] = if self.v6 { &[0x86, 0xdd] } else { &[8, 0] };
        [&SLEEPER.0[..], &CLIENT.0, self.link.tags, ethertype, packet].concat()
    }

    /// Sends a frame to the stand-in (`false`) or the client.
    fn launch(&mut self, to_client: bool, frame: Vec<u8>) {
        let running = self.running[usize::from(to_client)];
        let lost = self.random() % 100 < self.link.lost && running < 1;
        self.running[usize::from(to_client)] = if lost { running + 1 } else { 0 };
        if lost {
            return;
        }
        for _ in 0..=u8::from(self.random() % 100 < self.link.doubled) {
            let late = self.random() % (self.link.jitter * 1_000_000 + 100_000);
            self.flight.push((Timestamp(self.now.0 + late + 10_000), to_client, frame.clone()));
        }
    }

    fn arrive(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.flight.drain(..).partition(|(at, ..)| *at <= now);
        self.flight = later;
        for (_, to_client, frame) in due {
            if to_client {
                let packet = self.checked(&frame);
                self.wire.received.push(packet);
                self.interface.poll(instant(self.now), &mut self.wire, &mut self.sockets);
            } else if !self.ended {
                let frame = Frame::new(&frame).unwrap();
                let out = self.standin.take(&frame, self.now);
                // Who gives up a connection that is forgotten speaks to nobody.
                assert!(out.taken || segment(&frame).rst());
                self.take(out);
            }
        }
    }

    /// The packet in a frame to the client, which must be as it should.
    fn checked(&mut self, frame: &[u8]) -> Vec<u8> {
        let frame = Frame::new(frame).unwrap();
        assert_eq!((frame.dst(), frame.src(), frame.tags()), (CLIENT, SLEEPER, self.link.tags));
        assert!(frame.payload().len() <= usize::from(MTU));
        let tcp = segment(&frame);
        self.resets.extend(tcp.rst().then(|| tcp.dst_port()));
        frame.payload().to_vec()
    }

    fn take(&mut self, out: Out) {
        for frame in out.frames {
            self.launch(true, frame);
        }
        self.wakes.extend(out.wake.map(|why| (self.now, why)));
    }

    /// xorshift64* (Vigna, 2016).
    fn random(&mut self) -> u64 {
        let mut x = self.link.seed | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.link.seed = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}

fn segment<'a>(frame: &Frame<'a>) -> TcpPacket<&'a [u8]> {
    let payload = match frame.network() {
        Network::Ipv4(packet) => packet.payload,
        Network::Ipv6(packet) => packet.payload,
        other => unreachable!("{other:?}"),
    };
    TcpPacket::new_checked(payload).unwrap()
}

fn instant(now: Timestamp) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap())
}

/// The client's IP link, which checks all checksums.
#[derive(Default)]
struct Wire {
    received: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = (!self.received.is_empty()).then(|| self.received.remove(0))?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        // As a local client's segmentation offload: segments longer than the link's.
        capabilities.max_transmission_unit = 9000;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet = vec![0; len];
        let done = fill(&mut packet);
        self.0.push(packet);
        done
    }
}
