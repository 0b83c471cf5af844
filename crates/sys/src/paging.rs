//! Memory of other processes: giving it back to the host, and asking for it again.
//!
//! process_madvise(2) needs `CAP_SYS_NICE`, and the right to read the process's memory (ptrace(2),
//! `PTRACE_MODE_READ_FSCREDS`). Nothing here changes what a process finds in its memory.

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, RawFd},
};

/// Moves a range of a process's addresses out of memory: anonymous pages to swap, clean pages of
/// files to nothing (see [`write_back`]). madvise(2), `MADV_PAGEOUT`. Only those that the process has
/// mapped, and no other: of a file, [`evict`](crate::memory::evict) drops the rest.
///
/// # Errors
/// As process_madvise(2): `EINVAL` also for what is locked in memory, `EPERM` without the rights.
pub fn page_out(process: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    advise(process.as_fd().as_raw_fd(), range, libc::MADV_PAGEOUT)
}

/// Has the kernel read a range of a process's addresses, from its file or swap, in the background.
/// madvise(2), `MADV_WILLNEED`.
///
/// # Errors
/// As [`page_out`].
pub fn page_in(process: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    advise(process.as_fd().as_raw_fd(), range, libc::MADV_WILLNEED)
}

fn advise(process: RawFd, range: &Range<u64>, advice: libc::c_int) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let (start, length) = (usize::try_from(at), usize::try_from(range.end - at));
        let part = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(start.map_err(io::Error::other)?),
            iov_len: length.map_err(io::Error::other)?,
        };
        // SAFETY: the addresses are of the other process: the kernel reads only the vector itself, which
        // lives on through the call, and neither advice that is given here changes what any memory holds.
        let done = unsafe {
            libc::syscall(libc::SYS_process_madvise, process, &raw const part, 1_usize, advice, 0_u32)
        };
        match u64::try_from(done) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(done) => at += done,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

/// Writes a file's changed pages in a range to its disk, and waits: they are clean then, though no
/// safer from a power cut. sync_file_range(2).
///
/// # Errors
/// When the disk refuses, or `file` is not a regular file.
pub fn write_back(file: &File, range: &Range<u64>) -> io::Result<()> {
    let number = |at: u64| libc::off64_t::try_from(at).map_err(io::Error::other);
    let (offset, length) = (number(range.start)?, number(range.end.saturating_sub(range.start))?);
    if length == 0 {
        // To the kernel that means the whole rest of the file.
        return Ok(());
    }
    let all =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no memory is handed over, only numbers and an open file.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, all) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        mm::{MapFlags, ProtFlags},
        process::{Pid, PidfdFlags, pidfd_open},
    };
    use std::{fs, io::Write, os::fd::OwnedFd, process, time::Instant};

    fn myself() -> OwnedFd {
        pidfd_open(Pid::from_raw(process::id().try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
    }

    /// The addresses at which this process has mapped `path`.
    fn addresses(path: &str) -> Range<u64> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with(path)).unwrap();
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        u64::from_str_radix(start, 16).unwrap()..u64::from_str_radix(end, 16).unwrap()
    }

    #[test]
    fn changed_pages_of_a_file_go_to_the_disk_and_come_back_as_they_were() {
        // Not in /tmp, which may be in memory.
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let content: Vec<u8> = (0..8_u32 << 18).flat_map(u32::to_le_bytes).collect();
        file.write_all(&content).unwrap();
        let size = content.len();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice, of a file that nobody cuts.
        let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, &file, 0) };
        // SAFETY: the mapping made above, of this size, which nothing else in this process refers to.
        let bytes = unsafe { std::slice::from_raw_parts_mut(map.unwrap().cast::<u8>(), size) };
        // Only what is mapped is paged out.
        assert!(*bytes == *content);
        bytes[5 << 20] = 0xa5;
        let path = file.path().to_str().unwrap();
        let range = addresses(path);
        assert_eq!(range.end - range.start, size as u64);
        write_back(file.as_file(), &(0..size as u64)).unwrap();
        page_out(myself(), &range).unwrap();
        let left = crate::memory::resident_bytes(path).unwrap();
        assert!(left < 1 << 20, "{left} bytes are still in memory");
        page_in(myself(), &(range.start..range.start + (1 << 20))).unwrap();
        let start = Instant::now();
        while crate::memory::resident_bytes(path).unwrap() < 1 << 20 {
            assert!(start.elapsed().as_secs() < 60, "it never came");
            std::thread::yield_now();
        }
        assert_eq!(bytes[5 << 20], 0xa5);
        bytes[5 << 20] = content[5 << 20];
        assert!(*bytes == *content, "the memory is another");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(page_out(myself(), &(0..4096)).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert!(page_out(myself(), &(1..4096)).is_err());
        page_out(myself(), &(0..0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        write_back(&file, &(7..7)).unwrap();
        assert!(write_back(&file, &(0..u64::MAX)).is_err());
    }
}
