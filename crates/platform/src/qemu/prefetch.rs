//! Reads what a wake will touch before the guest asks for it, a page fault at a time.
//!
//! A sleeper's memory was dropped from the page cache. The first wake after that is watched: which
//! pages are resident a few milliseconds, and up to a second, after the guest was let run. The
//! next ones read these ahead, in that order, beside all else that a wake does, and add
//! what they missed. A full list gives up what it has named longest for that. (The idea of "Benchmarking, Analysis, and
//! Optimization of Serverless Function Snapshots", ASPLOS 2021, and of FaaSnap, EuroSys 2022.)

use std::{
    fs::{self, File},
    path::Path,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use dormouse_machine::spec::MemoryBacking;
use dormouse_sys::memory;
use tokio::task::JoinHandle;

use super::{Qemu, dir::MachineDir};
use crate::touched::Touched;

/// When the memory is looked at, after the guest was let run.
const LOOKS: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];
/// A look takes some 10 ms for each GiB: above this the first ones would cost more than they tell.
const LARGE: u64 = 1 << 30;
/// Of so much memory none is looked at.
const TOO_LARGE: u64 = 32 << 30;
/// With more than this part of its memory resident, a machine is not woken from the disk.
const WARM_PART: u64 = 64;

impl Qemu {
    /// Begins to read what the last wakes touched; returns at once.
    pub(super) fn read_ahead(&self) {
        if self.config.memory_backing != MemoryBacking::File {
            return;
        }
        let (dir, name) = (self.dir.clone(), self.config.name.clone());
        // Whoever waits for one of the pages waits for the disk, not for this.
        tokio::task::spawn_blocking(move || {
            let list = recall(&dir)?;
            let file = File::open(dir.ram()).ok()?;
            let asked = list.ranges().iter().try_for_each(|range| memory::read_ahead(&file, range));
            if let Err(error) = asked {
                tracing::debug!(%name, %error, "the memory is not read ahead");
            }
            Some(())
        });
    }

    /// Watches which pages are touched by a guest that was just let run.
    pub(super) fn watch_pages(&self) {
        let size = self.config.qemu.memory;
        if !self.evicted.swap(false, Ordering::AcqRel) || size > TOO_LARGE {
            return;
        }
        let first = if size > LARGE { 2 } else { 0 };
        let (dir, began) = (self.dir.clone(), tokio::time::Instant::now());
        self.hold_watch(Some(tokio::spawn(async move {
            let known = recall(&dir).unwrap_or_default();
            let mut missed = Touched::default();
            for look in LOOKS.into_iter().skip(first) {
                tokio::time::sleep_until(began + look).await;
                let ram = dir.ram();
                let seen = tokio::task::spawn_blocking(move || memory::resident_ranges(ram)).await;
                let Ok(Ok(resident)) = seen else { return };
                missed.add(&resident, &known, size);
            }
            if missed.bytes() > 0 {
                keep(&dir, &known.renewed(missed, size), size);
            }
        })));
    }

    /// No more of it: the memory is about to change, or to be looked at by others.
    pub(super) fn hold_watch(&self, watch: Option<JoinHandle<()>>) {
        let old = std::mem::replace(&mut *self.watch.lock().unwrap_or_else(PoisonError::into_inner), watch);
        if let Some(old) = old {
            old.abort();
        }
    }

    /// Notes whether the next wake comes from the disk, by what of the memory is still resident.
    pub(super) fn note_evicted(&self, resident: u64) {
        self.evicted.store(resident <= self.config.qemu.memory / WARM_PART, Ordering::Release);
    }
}

fn recall(dir: &MachineDir) -> Option<Touched> {
    let len = fs::metadata(dir.ram()).ok()?.len();
    Touched::from_bytes(&fs::read(dir.touched()).ok()?, len)
}

/// Not made durable: it is advice, and has a checksum.
fn keep(dir: &MachineDir, list: &Touched, size: u64) {
    let path = dir.touched();
    let new = path.with_extension("new");
    if let Err(error) = put(&new, &path, &list.to_bytes(size)) {
        tracing::debug!(path = %path.display(), %error, "what a wake touched is not kept");
    }
}

fn put(new: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::write(new, bytes)?;
    fs::rename(new, path)
}
