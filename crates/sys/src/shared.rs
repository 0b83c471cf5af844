//! Words shared with a BPF program, and the barrier that makes its past visible.

use std::{os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

/// Why shared words cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The map could not be mapped: not an array with `BPF_F_MMAPABLE` (Linux 5.5), or shorter.
    #[error("cannot map {bytes} bytes of the BPF array")]
    Map {
        /// What was asked for.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The values of a BPF array map made with `BPF_F_MMAPABLE`, as 64-bit atomics.
///
/// A BPF program's atomic instructions on the same words are atomic with respect to ours.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only reached by atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `bytes` bytes of an array map's values.
    ///
    /// # Errors
    /// When the kernel refuses the mapping.
    pub fn map(map: impl AsFd, bytes: usize) -> Result<Self, Error> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice: it touches no memory that
        // Rust knows. It is only reached through `AtomicU64`, for which any bits are valid.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, map, 0) }
                .map_err(|errno| Error::Map { bytes, source: errno.into() })?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| Error::Map { bytes, source: rustix::io::Errno::FAULT.into() })?;
        Ok(Self { start, bytes })
    }

    /// The word at a byte offset; `None` outside the map or off a multiple of 8.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let inside = offset.checked_add(8).is_some_and(|end| end <= self.bytes);
        if !inside || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: inside the mapping, which lives as long as `self`; aligned, since the mapping
        // starts on a page; shared only through atomics.
        Some(unsafe { &*self.start.as_ptr().byte_add(offset) })
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: our own mapping of exactly this length; every reference into it borrowed
        // `self`. Nothing can be done about a failure, and none is possible for valid arguments.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Waits until every processor has left the kernel code that it was in (an RCU grace period):
/// frames that were being forwarded by a state of the bridge or of a BPF map from before the
/// call are through. Some 10 ms. membarrier(2), `MEMBARRIER_CMD_GLOBAL`.
///
/// # Errors
/// ENOSYS or EINVAL where the kernel does not have it (`nohz_full` hosts): wait 50 ms instead.
pub fn membarrier_global() -> std::io::Result<()> {
    rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global).map_err(Into::into)
}
