//! How much host memory a file occupies, and giving it back.

use std::{fs::File, io, num::NonZeroU64, ops::Range, os::fd::AsFd, path::Path};

use rustix::{
    fs::Advice,
    mm::{MapFlags, ProtFlags},
};

/// Bytes looked at in one go: bounds the table of pages to 256 KiB.
const WINDOW: u64 = 1 << 30;
/// Bytes asked for in one go: of more, the kernel may read only the first part.
const READ_AHEAD: u64 = 128 << 10;

/// Drops a file's clean pages from the page cache. Dirty ones stay: sync the file first.
/// posix_fadvise(2), `POSIX_FADV_DONTNEED`. Pages that a process has mapped stay as well.
///
/// # Errors
/// When `file` is not a regular file.
pub fn evict(file: impl AsFd) -> io::Result<()> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).map_err(Into::into)
}

/// Has the kernel read a range of a file into the page cache, in the background.
/// posix_fadvise(2), `POSIX_FADV_WILLNEED`.
///
/// # Errors
/// When `file` is not a regular file.
pub fn read_ahead(file: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    let mut offset = range.start;
    while let Some(length) = NonZeroU64::new(range.end.saturating_sub(offset).min(READ_AHEAD)) {
        rustix::fs::fadvise(&file, offset, Some(length), Advice::WillNeed)?;
        offset += length.get();
    }
    Ok(())
}

/// Bytes of the file at `path` that are in memory now. mincore(2).
///
/// # Errors
/// When the file cannot be opened or mapped. The kernel tells the truth only to who may write
/// the file, and calls all of it resident to others.
pub fn resident_bytes(path: impl AsRef<Path>) -> io::Result<u64> {
    let ranges = resident_ranges(path)?;
    Ok(ranges.iter().map(|range| range.end - range.start).sum())
}

/// The ranges, in bytes, of the file at `path` that are in memory now, in ascending order and whole
/// pages. As [`resident_bytes`].
///
/// # Errors
/// As [`resident_bytes`].
pub fn resident_ranges(path: impl AsRef<Path>) -> io::Result<Vec<Range<u64>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let page = u64::try_from(rustix::param::page_size()).map_err(io::Error::other)?;
    let (mut ranges, mut offset) = (Vec::<Range<u64>>::new(), 0);
    while offset < length {
        let window = (length - offset).min(WINDOW);
        let pages = residency(&file, offset, window)?;
        for start in
            (offset..).step_by(rustix::param::page_size()).zip(pages).filter_map(|(at, is)| is.then_some(at))
        {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = start + page,
                _ => ranges.push(start..start + page),
            }
        }
        offset += window;
    }
    Ok(ranges)
}

/// Of each page of a part of a file: is it in memory?
fn residency(file: &File, offset: u64, length: u64) -> io::Result<impl Iterator<Item = bool>> {
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
    Ok(pages.into_iter().map(|page| page & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    /// Whether what was asked for is there is for the kernel to say, but it must not be elsewhere.
    #[test]
    fn what_is_read_is_resident_and_what_was_evicted_is_not() {
        // Not in /tmp, which may be in memory.
        let path = Path::new("/var/tmp").join(format!("dormouse-sys-memory-{}", std::process::id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap_or_default();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        file.write_all(&vec![7; 16 << 20]).unwrap();
        file.sync_all().unwrap();
        evict(&file).unwrap();
        if resident_bytes(&path).unwrap() > 0 {
            eprintln!("this file system keeps its pages: not tested");
            return;
        }
        file.seek(SeekFrom::Start(8 << 20)).unwrap();
        file.read_exact(&mut [0; 4096]).unwrap();
        let ranges = resident_ranges(&path).unwrap();
        assert!(ranges.iter().any(|range| range.contains(&(8 << 20))), "{ranges:?}");
        assert_eq!(resident_bytes(&path).unwrap(), ranges.iter().map(|r| r.end - r.start).sum::<u64>());
        evict(&file).unwrap();
        assert_eq!(resident_ranges(&path).unwrap(), []);
        read_ahead(&file, &(1 << 20..3 << 20)).unwrap();
        // The kernel reads by itself from here on, and in the end has read all of it.
        let start = std::time::Instant::now();
        while !resident_ranges(&path)
            .unwrap()
            .iter()
            .any(|range| range.start <= 1 << 20 && range.end >= 3 << 20)
        {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "it never came");
            std::thread::yield_now();
        }
        read_ahead(&file, &(5..5)).unwrap();
    }
}
