//! How much host memory a file occupies, and giving it back.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use rustix::{
    fs::Advice,
    mm::{MapFlags, ProtFlags},
};

/// Bytes looked at in one go: bounds the table of pages to 256 KiB.
const WINDOW: u64 = 1 << 30;

/// Drops a file's clean pages from the page cache. Dirty ones stay: sync the file first.
/// posix_fadvise(2), `POSIX_FADV_DONTNEED`. Pages that a process has mapped stay as well.
///
/// # Errors
/// When `file` is not a regular file.
pub fn evict(file: impl AsFd) -> io::Result<()> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).map_err(Into::into)
}

/// Bytes of the file at `path` that are in memory now. mincore(2).
///
/// # Errors
/// When the file cannot be opened or mapped. The kernel tells the truth only to who may write
/// the file, and calls all of it resident to others.
pub fn resident_bytes(path: impl AsRef<Path>) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut resident = 0;
    let mut offset = 0;
    while offset < length {
        let window = (length - offset).min(WINDOW);
        resident += resident_in(&file, offset, window)?;
        offset += window;
    }
    Ok(resident)
}

fn resident_in(file: &File, offset: u64, length: u64) -> io::Result<u64> {
    let page = rustix::param::page_size();
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut pages = vec![0u8; length.div_ceil(page)];
    // SAFETY: a new mapping at an address of the kernel's choice, without access: nobody can
    // touch it, so it cannot fault when the file is cut.
    let start = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::empty(), MapFlags::SHARED, file, offset)
    }?;
    // SAFETY: the mapping made above, and a table with a byte for each of its pages.
    let result = unsafe { libc::mincore(start, length, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: our own mapping of exactly this length; nothing refers to it.
    unsafe { rustix::mm::munmap(start, length) }?;
    if result < 0 {
        return Err(error);
    }
    let count = pages.iter().filter(|page| **page & 1 == 1).count();
    Ok(u64::try_from(count * page).unwrap_or(u64::MAX))
}
