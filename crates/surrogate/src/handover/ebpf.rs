//! The handover with the kernel's help: `bpf/steer.c` on the bridge port.
//!
//! Needs Linux 5.19 (`SO_RCVMARK`), CAP_BPF and CAP_NET_ADMIN. From Linux 6.6 on the program is
//! attached by a link that ends with the process (TCX), before by a filter of the clsact queueing
//! discipline, which a killed daemon leaves behind: it is removed when the next one starts.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc},
};
use dormouse_sys::SharedWords;
use dormouse_types::MacAddr;

use super::{Handover, HandoverError};

/// The compiled program, aligned as the object parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.o"));

/// The program's name in `bpf/steer.c`.
const PROGRAM: &str = "steer";

/// Addresses that can be counted on a port; `SLOTS` in `bpf/steer.c`.
pub(crate) const SLOTS: u32 = 16384;

/// `struct slot` in `bpf/steer.c`: byte offsets of its words, and its size.
const WORD: usize = 0;
const TAP: usize = 8;
const DIRECT_COUNT: usize = 16;
const LIMIT: usize = 24;
const SHED_COUNT: usize = 32;
const SLOT_BYTES: usize = 40;

/// Set in a slot's word: frames go to the tap.
const DIRECT: u64 = 1 << 63;
/// Set in a slot's word: frames are dropped, and counted apart.
const SHED: u64 = 1 << 62;
/// The rest of the word: frames numbered.
const COUNT: u64 = SHED - 1;
/// The key of all group addresses in `bpf/steer.c`.
const GROUPS: u64 = 1 << 48;

/// Why the kernel's help cannot be had; the plain handover is used then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unavailable {
    /// The kernel is too old.
    #[error("the kernel does not tell packet sockets the marks of frames: it needs Linux 5.19")]
    NoMarks,
    /// The kernel does not take the program.
    #[error("the kernel does not load BPF programs for us: grant CAP_BPF and CAP_NET_ADMIN")]
    Load(#[source] Box<EbpfError>),
    /// The kernel does not verify or attach the program.
    #[error("cannot attach the BPF program to {port}: grant CAP_BPF and CAP_NET_ADMIN")]
    Attach {
        /// The bridge port.
        port: String,
        /// What went wrong.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program of a killed daemon is in the way.
    #[error("cannot remove the BPF program that an earlier daemon left on {port}")]
    Stale {
        /// The bridge port.
        port: String,
        /// What went wrong.
        #[source]
        source: Box<tc::TcError>,
    },
    /// The object is not the one that this code was written for.
    #[error("the BPF object has no {0}")]
    Object(&'static str),
    /// A map cannot be used.
    #[error("cannot use the BPF map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What went wrong.
        #[source]
        source: Box<MapError>,
    },
    /// The counters cannot be shared with the kernel.
    #[error(transparent)]
    Share(#[from] dormouse_sys::shared::Error),
}

/// Counts and redirects on one bridge port. Dropping it detaches the program.
#[derive(Debug)]
pub(crate) struct Ebpf {
    addresses: aya::maps::HashMap<MapData, u64, u32>,
    words: SharedWords,
    known: HashMap<MacAddr, Slot>,
    /// Slots to give out; those given back come last, long after the program has left them.
    free: VecDeque<u32>,
    /// Keeps the program and its attachment.
    _program: aya::Ebpf,
}

/// An address's place in the array.
#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u32,
    /// The count at which it was switched to the tap.
    switched: Option<u64>,
    /// How many of the frames that were shed have been told.
    shed_told: u64,
}

impl Slot {
    const fn new(index: u32) -> Self {
        Self { index, switched: None, shed_told: 0 }
    }
}

/// Makes what a new loader reads, all types of the kernel, be read once in the life of the process
/// (some 100 ms of CPU time, before which nobody is stood in for) and not at each load.
static LOADER: Mutex<Option<EbpfLoader<'static>>> = Mutex::new(None);

fn load_object() -> Result<aya::Ebpf, Unavailable> {
    let mut loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let loader = loader.get_or_insert_with(|| {
        let mut loader = EbpfLoader::new();
        // The program has no relocations against the kernel's types.
        loader.btf(None);
        loader
    });
    loader.load(OBJECT).map_err(|error| Unavailable::Load(Box::new(error)))
}

impl Ebpf {
    /// Loads the program and attaches it to the bridge port `port`, in the calling thread's
    /// network namespace.
    ///
    /// `has_marks`: what [`PacketSocket::has_marks`](dormouse_sys::PacketSocket::has_marks) says
    /// of the socket that receives what the port sends.
    ///
    /// # Errors
    /// Why it cannot be had, in words for `doctor`.
    pub(crate) fn load(port: &str, has_marks: bool) -> Result<Self, Unavailable> {
        if !has_marks {
            return Err(Unavailable::NoMarks);
        }
        let mut object = load_object()?;
        let addresses = take_map(&mut object, "slot_of")?;
        let addresses = aya::maps::HashMap::try_from(addresses)
            .map_err(|source| Unavailable::Map { map: "slot_of", source: Box::new(source) })?;
        let Map::Array(slots) = take_map(&mut object, "slots")? else {
            return Err(Unavailable::Object("array of slots"));
        };
        let bytes = usize::try_from(SLOTS).unwrap_or_default() * SLOT_BYTES;
        let words = SharedWords::map(slots.fd(), bytes)?;
        remove_stale(port)?;
        attach(&mut object, port)?;
        Ok(Self { addresses, words, known: HashMap::new(), free: (0..SLOTS).collect(), _program: object })
    }

    /// Frames redirected to the tap since `begin`; `None` for an unknown address.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn redirected(&self, mac: MacAddr) -> Option<u64> {
        let slot = self.known.get(&mac)?;
        Some(self.word(slot.index, DIRECT_COUNT)?.load(Ordering::SeqCst))
    }

    fn word(&self, slot: u32, field: usize) -> Option<&AtomicU64> {
        self.words.word(usize::try_from(slot).ok()? * SLOT_BYTES + field)
    }

    /// Sets a slot to: nothing counted, nothing redirected, everything admitted.
    fn reset(&self, slot: u32) {
        // The word before the tap: until then a redirection, if any, still has its tap.
        for (field, value) in [(DIRECT_COUNT, 0), (SHED_COUNT, 0), (LIMIT, u64::MAX), (WORD, 0), (TAP, 0)] {
            if let Some(word) = self.word(slot, field) {
                word.store(value, Ordering::SeqCst);
            }
        }
    }

    fn known_word(&self, mac: MacAddr, field: usize) -> Option<&AtomicU64> {
        self.word(self.known.get(&whole(mac))?.index, field)
    }
}

impl Handover for Ebpf {
    fn begin(&mut self, mac: MacAddr) -> Result<(), HandoverError> {
        let mac = whole(mac);
        let known = self.known.get(&mac).map(|slot| slot.index);
        let refused = |why: String| HandoverError { mac, why };
        let index = match known {
            Some(index) => index,
            None => {
                self.free.pop_front().ok_or_else(|| refused(format!("all {SLOTS} counters are in use")))?
            }
        };
        self.reset(index);
        if known.is_none()
            && let Err(error) = self.addresses.insert(key(mac), index, 0)
        {
            self.free.push_front(index);
            return Err(refused(error.to_string()));
        }
        self.known.insert(mac, Slot::new(index));
        Ok(())
    }

    fn counted(&self, mac: MacAddr) -> Option<u64> {
        let slot = self.known.get(&whole(mac))?;
        slot.switched.or_else(|| Some(self.word(slot.index, WORD)?.load(Ordering::SeqCst) & COUNT))
    }

    fn switch(&mut self, mac: MacAddr, count: u64, tap: u32) -> bool {
        let (Some(word), Some(way)) = (self.known_word(mac, WORD), self.known_word(mac, TAP)) else {
            return false;
        };
        // Read by the program only after it has seen DIRECT.
        way.store(tap.into(), Ordering::SeqCst);
        let before = count | (word.load(Ordering::SeqCst) & SHED);
        let done = word.compare_exchange(before, count | DIRECT, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if done && let Some(slot) = self.known.get_mut(&mac) {
            slot.switched = Some(count);
        }
        done
    }

    fn shed(&mut self, mac: MacAddr, on: bool) {
        let Some(word) = self.known_word(mac, WORD) else { return };
        if on {
            word.fetch_or(SHED, Ordering::SeqCst);
        } else {
            word.fetch_and(!SHED, Ordering::SeqCst);
        }
    }

    fn admit(&mut self, mac: MacAddr, up_to: u64) {
        if let Some(limit) = self.known_word(mac, LIMIT) {
            limit.store(up_to, Ordering::SeqCst);
        }
    }

    fn take_shed(&mut self, mac: MacAddr) -> u64 {
        let Some(word) = self.known_word(mac, SHED_COUNT) else { return 0 };
        let all = word.load(Ordering::SeqCst);
        let Some(slot) = self.known.get_mut(&whole(mac)) else { return 0 };
        all - std::mem::replace(&mut slot.shed_told, all)
    }

    fn end(&mut self, mac: MacAddr) {
        let mac = whole(mac);
        let Some(slot) = self.known.remove(&mac) else { return };
        match self.addresses.remove(&key(mac)) {
            Ok(()) => self.free.push_back(slot.index),
            // Still reachable by the program: never given out again.
            Err(error) => tracing::warn!(%mac, %error, "cannot remove an address from the BPF map"),
        }
    }
}

/// All group addresses are counted as one.
fn whole(mac: MacAddr) -> MacAddr {
    if mac.is_multicast() { MacAddr::BROADCAST } else { mac }
}

/// The address as `bpf/steer.c` reads it.
fn key(mac: MacAddr) -> u64 {
    let MacAddr([a, b, c, d, e, f]) = mac;
    if mac.is_multicast() { GROUPS } else { u64::from_be_bytes([0, 0, a, b, c, d, e, f]) }
}

fn take_map(object: &mut aya::Ebpf, name: &'static str) -> Result<Map, Unavailable> {
    object.take_map(name).ok_or(Unavailable::Object(name))
}

/// Removes the filter that a killed daemon left.
fn remove_stale(port: &str) -> Result<(), Unavailable> {
    match tc::qdisc_detach_program(port, TcAttachType::Egress, PROGRAM) {
        Ok(()) => {
            tracing::info!(port, "removed the BPF program of an earlier daemon");
            Ok(())
        }
        Err(tc::TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Unavailable::Stale { port: port.to_owned(), source: Box::new(source) }),
    }
}

fn attach(object: &mut aya::Ebpf, port: &str) -> Result<(), Unavailable> {
    let refused =
        |source: ProgramError| Unavailable::Attach { port: port.to_owned(), source: Box::new(source) };
    let program = object.program_mut(PROGRAM).ok_or(Unavailable::Object(PROGRAM))?;
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    if program.attach(port, TcAttachType::Egress).is_ok() {
        return Ok(());
    }
    // Only kernels that attach no program without it get the queueing discipline: adding it
    // stops the port for a moment, and frames are lost. It is there already after a restart.
    let _ = tc::qdisc_add_clsact(port);
    let options = tc::TcAttachOptions::Netlink(tc::NlOptions::default());
    program.attach_with_options(port, TcAttachType::Egress, options).map_err(refused)?;
    Ok(())
}

/// Attaches the program as kernels before 6.6 do, and leaves it there.
#[cfg(test)]
pub(super) fn tests_leave_stale(port: &str) {
    let mut object = aya::Ebpf::load(OBJECT).unwrap();
    tc::qdisc_add_clsact(port).unwrap();
    let program: &mut SchedClassifier = object.program_mut(PROGRAM).unwrap().try_into().unwrap();
    program.load().unwrap();
    let options = tc::TcAttachOptions::Netlink(tc::NlOptions::default());
    program.attach_with_options(port, TcAttachType::Egress, options).unwrap();
    std::mem::forget(object);
}
