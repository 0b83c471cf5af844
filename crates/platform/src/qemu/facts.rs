//! What a machine occupies, and giving it back to the host.

use std::{fs, fs::File, os::unix::fs::MetadataExt, path::Path};

use super::{Qemu, blocking};
use crate::{Error, Facts};

impl Qemu {
    pub(super) async fn tell(&self) -> Facts {
        let pid = self.running().await.ok().map(|r| r.process.pid);
        let (ram, state) = (self.dir.ram(), self.dir.state());
        let standby = self.standby_pid().await;
        let standby_bytes = self.standby_memory().await;
        let resident_bytes = pid.or(standby).map_or(0, anonymous_bytes)
            + dormouse_sys::memory::resident_bytes(&ram).unwrap_or(0);
        let disk_bytes = allocated(&ram) + allocated(&state);
        let console = Some(self.dir.console()).filter(|c| c.exists());
        Facts { pid, resident_bytes: Some(resident_bytes), standby_bytes, disk_bytes, console }
    }

    /// Drops the memory's pages from the page cache; they were flushed, so that none stays.
    pub(super) async fn give_memory_back(&self) -> Result<(), Error> {
        let (ram, state, name) = (self.dir.ram(), self.dir.state(), self.config.name.clone());
        let left = blocking(move || {
            let mut sum: u64 = 0;
            for path in [ram, state].iter().filter(|p| p.exists()) {
                evict(path)?;
                let left = dormouse_sys::memory::resident_bytes(path).unwrap_or(0);
                sum = sum.saturating_add(left);
                let size = allocated(path);
                if left > size / 8 {
                    tracing::warn!(%name, path = %path.display(), left, size, "the host keeps the machine's memory in its page cache");
                }
            }
            Ok(sum)
        })
        .await?;
        self.note_evicted(left);
        Ok(())
    }
}

fn evict(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().and_then(|()| dormouse_sys::memory::evict(&file)).map_err(Error::io("evict", path))
}

fn allocated(path: &Path) -> u64 {
    // st_blocks is in units of 512 bytes; stat(2).
    fs::metadata(path).map_or(0, |m| m.blocks().saturating_mul(512))
}

/// Bytes of the process's own memory: the RAM file is counted by itself.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_anonymous(&status).unwrap_or(0)
}

/// proc_pid_status(5): `RssAnon:     1234 kB`.
fn parse_anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::parse_anonymous;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(parse_anonymous("VmRSS:\t 9 kB\nRssAnon:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(parse_anonymous(""), None);
    }
}
