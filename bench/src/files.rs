//! What the page cache holds of a directory's files.

use anyhow::{Context, Result};
use dormouse_lab::files_under;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::{
    fs::File,
    io,
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

/// Reads all files into the page cache.
pub(crate) fn warm(dir: &Path) -> Result<()> {
    each(dir, |file| {
        io::copy(&mut io::BufReader::with_capacity(1 << 20, file), &mut io::sink())?;
        Ok(())
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
