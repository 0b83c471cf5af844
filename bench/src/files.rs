//! What the page cache holds of a directory's files.

use anyhow::{Context, Result};
use dormouse_lab::files_under;
use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    unistd::{Whence, lseek},
};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::{Duration, Instant},
};

/// Puts all files on the disk; returns how long that took.
pub(crate) fn flush(dir: &Path) -> Result<Duration> {
    let start = Instant::now();
    each(dir, |file| Ok(file.sync_all()?))?;
    Ok(start.elapsed())
}

/// Throws all files out of the page cache. They must be on the disk.
pub(crate) fn evict(dir: &Path) -> Result<()> {
    each(dir, |file| Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?))
}

/// Reads all files into the page cache, but not their holes, which would only fill it with zeros.
pub(crate) fn warm(dir: &Path) -> Result<()> {
    each(dir, |mut file| {
        let mut at = 0;
        loop {
            let start = match lseek(file, at, Whence::SeekData) {
                Ok(start) => start,
                // No data after here.
                Err(Errno::ENXIO) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            at = lseek(file, start, Whence::SeekHole)?;
            lseek(file, start, Whence::SeekSet)?;
            let length = u64::try_from(at - start)?;
            io::copy(
                &mut io::BufReader::with_capacity(1 << 20, file.by_ref().take(length)),
                &mut io::sink(),
            )?;
        }
    })
}

fn each(dir: &Path, work: impl Fn(&File) -> Result<()>) -> Result<()> {
    for path in files_under(dir) {
        // A file may be removed by its owner at any time.
        let Ok(file) = File::open(&path) else { continue };
        work(&file).with_context(|| format!("cannot prepare {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::FileExt, process};

    #[test]
    fn a_file_with_holes_is_read_flushed_and_evicted() {
        let dir = std::path::PathBuf::from(format!("/var/tmp/dormouse-bench-files-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = File::create(dir.join("sparse")).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.set_len(1 << 30).unwrap();
        let done = flush(&dir).and_then(|_| evict(&dir)).and_then(|()| warm(&dir));
        fs::remove_dir_all(&dir).unwrap();
        done.unwrap();
    }
}
