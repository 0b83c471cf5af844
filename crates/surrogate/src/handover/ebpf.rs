//! The handover with the kernel's help: `bpf/steer.c` on the bridge port.
//!
//! Needs Linux 5.19 (`SO_RCVMARK`), CAP_BPF and CAP_NET_ADMIN. From Linux 6.6 on the program is
//! attached by a link that ends with the process (TCX), before by a filter of the clsact queueing
//! discipline, which a killed daemon leaves behind: it is removed when the next one starts.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{maps::MapData, programs::TcAttachType};
use dormouse_sys::SharedWords;
use dormouse_types::MacAddr;

use super::{Handover, HandoverError};
use crate::bpf::{self, Unavailable};

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
/// The key of all group addresses in `bpf/steer.c`.
const GROUPS: u64 = 1 << 48;

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
        let mut object = bpf::load(OBJECT, PROGRAM)?;
        let addresses = bpf::hash_map(&mut object, "slot_of")?;
        let bytes = usize::try_from(SLOTS).unwrap_or_default() * SLOT_BYTES;
        let words = bpf::shared_array(&mut object, "slots", bytes)?;
        bpf::attach(&mut object, PROGRAM, port, TcAttachType::Egress)?;
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
        slot.switched.or_else(|| Some(self.word(slot.index, WORD)?.load(Ordering::SeqCst) & !DIRECT))
    }

    fn switch(&mut self, mac: MacAddr, count: u64, tap: u32) -> bool {
        let (Some(word), Some(way)) = (self.known_word(mac, WORD), self.known_word(mac, TAP)) else {
            return false;
        };
        // Read by the program only after it has seen DIRECT.
        way.store(tap.into(), Ordering::SeqCst);
        let done = word.compare_exchange(count, count | DIRECT, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if done && let Some(slot) = self.known.get_mut(&mac) {
            slot.switched = Some(count);
        }
        done
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

/// Attaches the program as kernels before 6.6 do, and leaves it there.
#[cfg(test)]
pub(super) fn tests_leave_stale(port: &str) {
    bpf::tests_leave_stale(OBJECT, PROGRAM, port, TcAttachType::Egress);
}
