//! The table of connections that `bpf/flows.c` keeps, as seen from user space: a tap's region of it.
//!
//! A region has [`SETS`] sets of [`WAYS`] connections. Who changes a set makes its sequence number odd
//! meanwhile; the program does not wait for us, nor we for long for it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use dormouse_sys::SharedWords;
use dormouse_types::Timestamp;
use dormouse_wire::{Flow, Followed};
use rustix::time::ClockId;

use super::{nanos, now};

/// Regions of a table; `REGIONS` in `bpf/flows.c`, and so on.
pub(super) const REGIONS: u32 = 32;
/// Sets of a region.
const SETS: usize = 32;
/// Connections of a set.
const WAYS: usize = 15;
/// `struct flow`, in words of eight octets.
const FLOW_WORDS: usize = 8;
/// `struct set`, in octets: its sequence number, and its connections from word 8 on.
const SET_BYTES: usize = 8 * (8 + WAYS * FLOW_WORDS);
/// A region, in octets.
const REGION_BYTES: usize = SETS * SET_BYTES;
/// A table, in octets.
pub(super) const TABLE_BYTES: usize = 32 * REGION_BYTES;

/// `enum state`.
const FREE: u8 = 0;
const ESTABLISHED: u8 = 2;
/// In `flags` of `struct flow`.
const HAS_TSVAL: u8 = 1;

/// How often to try what another processor is about to change.
const TRIES: usize = 1000;

/// `struct flow`, as it lies in memory.
type Words = [u64; FLOW_WORDS];

/// One tap's part of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'a> {
    words: &'a SharedWords,
    start: usize,
}

impl<'a> Region<'a> {
    /// The region with this number of the table that is mapped to `words`.
    pub(super) fn new(words: &'a SharedWords, number: u32) -> Self {
        Self { words, start: usize::try_from(number).unwrap_or_default() * REGION_BYTES }
    }

    /// The connections, those heard last first.
    pub(super) fn flows(self, clock: Clock) -> Vec<Followed> {
        let mut places: Vec<Place> =
            (0..SETS).flat_map(|set| self.read(set)).filter_map(|words| Place::of(&words, clock)).collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.flow.heard));
        let followed = |Place { flow, state }| Followed { flow, closing: state != ESTABLISHED };
        places.into_iter().map(followed).collect()
    }

    /// Enters connections that are not in it, where there is room.
    pub(super) fn enter(self, known: &[Flow], clock: Clock) {
        for flow in known {
            let words = Place { flow: *flow, state: ESTABLISHED }.words(clock);
            self.enter_one(set_of(&words), words);
        }
    }

    /// Forgets all. Nobody else may know the region.
    pub(super) fn clear(self) {
        for word in (self.start..self.start + REGION_BYTES).step_by(8).filter_map(|at| self.words.word(at)) {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn enter_one(self, set: usize, words: Words) {
        let Some(sequence) = self.sequence(set) else { return };
        let odd = (0..TRIES).find_map(|_| {
            let now = sequence.load(Ordering::SeqCst);
            let ours = now.is_multiple_of(2)
                && sequence.compare_exchange(now, now + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            ours.then_some(now + 1)
        });
        let Some(odd) = odd else { return };
        let places: Vec<Words> = (0..WAYS).map(|way| self.load(set, way)).collect();
        let is_known = places.iter().any(|old| state(old) != FREE && ends(old) == ends(&words));
        if let (false, Some(way)) = (is_known, places.iter().position(|old| state(old) == FREE)) {
            for (at, value) in words.iter().enumerate() {
                if let Some(word) = self.word(set, way, at) {
                    word.store(*value, Ordering::SeqCst);
                }
            }
        }
        sequence.store(odd + 1, Ordering::SeqCst);
    }

    /// What a set has, unless it changes all the time.
    fn read(self, set: usize) -> Vec<Words> {
        let Some(sequence) = self.sequence(set) else { return Vec::new() };
        for _ in 0..TRIES {
            let before = sequence.load(Ordering::SeqCst);
            let places = (0..WAYS).map(|way| self.load(set, way)).collect();
            if before.is_multiple_of(2) && sequence.load(Ordering::SeqCst) == before {
                return places;
            }
            std::hint::spin_loop();
        }
        Vec::new()
    }

    fn load(self, set: usize, way: usize) -> Words {
        std::array::from_fn(|at| self.word(set, way, at).map_or(0, |word| word.load(Ordering::SeqCst)))
    }

    fn sequence(self, set: usize) -> Option<&'a AtomicU64> {
        self.words.word(self.start + set * SET_BYTES)
    }

    fn word(self, set: usize, way: usize, at: usize) -> Option<&'a AtomicU64> {
        self.words.word(self.start + set * SET_BYTES + 8 * (FLOW_WORDS + way * FLOW_WORDS + at))
    }
}

/// What a place of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    flow: Flow,
    state: u8,
}

impl Place {
    /// Reads `struct flow`; `None` if the place is free.
    fn of(words: &Words, clock: Clock) -> Option<Self> {
        let state = state(words);
        let [a, b, c, d, ports, numbers, rest, heard] = words.map(u64::to_ne_bytes);
        let flow = Flow {
            local: end([a, b], [ports[0], ports[1]]),
            remote: end([c, d], [ports[2], ports[3]]),
            snd_nxt: u32::from_ne_bytes([ports[4], ports[5], ports[6], ports[7]]),
            rcv_nxt: u32::from_ne_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]),
            window: u16::from_ne_bytes([rest[0], rest[1]]),
            tsval: (rest[3] & HAS_TSVAL != 0)
                .then(|| u32::from_ne_bytes([numbers[4], numbers[5], numbers[6], numbers[7]])),
            heard: clock.time(u64::from_ne_bytes(heard)),
        };
        (state != FREE).then_some(Self { flow, state })
    }

    fn words(&self, clock: Clock) -> Words {
        let Flow { local, remote, snd_nxt, rcv_nxt, window, tsval, heard } = self.flow;
        let ([a, b], [c, d]) = (halves(local.ip()), halves(remote.ip()));
        let ([e, f], [g, h]) = (local.port().to_be_bytes(), remote.port().to_be_bytes());
        let [i, j, k, l] = snd_nxt.to_ne_bytes();
        let ([m, n, o, p], [q, r, s, t]) = (rcv_nxt.to_ne_bytes(), tsval.unwrap_or(0).to_ne_bytes());
        let [u, v] = window.to_ne_bytes();
        let flags = if tsval.is_some() { HAS_TSVAL } else { 0 };
        [
            a,
            b,
            c,
            d,
            u64::from_ne_bytes([e, f, g, h, i, j, k, l]),
            u64::from_ne_bytes([m, n, o, p, q, r, s, t]),
            u64::from_ne_bytes([u, v, self.state, flags, 0, 0, 0, 0]),
            clock.monotonic(heard),
        ]
    }
}

fn state(words: &Words) -> u8 {
    words[6].to_ne_bytes()[2]
}

/// The addresses, and both ports.
fn ends(words: &Words) -> ([u64; 4], [u8; 4]) {
    let [a, b, c, d, ports, ..] = *words;
    let [e, f, g, h, ..] = ports.to_ne_bytes();
    ([a, b, c, d], [e, f, g, h])
}

/// The set of a connection, as the program finds it.
fn set_of(words: &Words) -> usize {
    let (addresses, ports) = ends(words);
    let both = addresses.iter().fold(0, |all, half| all ^ half).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = both;
    let [local, remote] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_ne_bytes).map(u32::from);
    let hash = u32::from_ne_bytes([a, b, c, d]) ^ u32::from_ne_bytes([e, f, g, h]) ^ (local << 16 | remote);
    usize::try_from(hash.wrapping_mul(0x9e37_79b1) >> 27).unwrap_or_default()
}

/// IPv4 addresses are mapped ones (RFC 4291 §2.5.5.2).
fn halves(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .octets();
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

fn end([a, b]: [[u8; 8]; 2], port: [u8; 2]) -> SocketAddr {
    let mut octets = [0; 16];
    octets.iter_mut().zip(a.into_iter().chain(b)).for_each(|(to, octet)| *to = octet);
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be_bytes(port))
}

/// Two readings of the host's clocks at the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    monotonic: u64,
    real: Timestamp,
}

impl Clock {
    /// Now.
    pub(super) fn read() -> Self {
        Self { monotonic: nanos(ClockId::Monotonic), real: now() }
    }

    fn time(self, monotonic: u64) -> Timestamp {
        let Timestamp(real) = self.real;
        Timestamp(real.saturating_sub(self.monotonic.saturating_sub(monotonic)))
    }

    /// Of what was before the host started: that it was then.
    fn monotonic(self, Timestamp(time): Timestamp) -> u64 {
        let Timestamp(real) = self.real;
        self.monotonic.saturating_sub(real.saturating_sub(time))
    }
}
