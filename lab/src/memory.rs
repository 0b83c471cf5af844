//! How much of the host's memory a lab's guests occupy, asked of the kernel and of nobody else.

use crate::{Error, Lab, Result, command};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Host memory that guests occupy, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// Memory of the QEMU processes that is no file's: it needs swap to be freed.
    pub processes: u64,
    /// Page cache of their memory files and saved states.
    pub cached: u64,
}

impl HostMemory {
    /// Both together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.processes + self.cached
    }
}

impl Lab {
    /// The QEMU processes on the switch.
    ///
    /// # Errors
    ///
    /// If the namespace is gone.
    pub fn qemu_pids(&self) -> Result<Vec<i32>> {
        let is_qemu = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
        };
        Ok(self.switch().pids()?.into_iter().filter(is_qemu).collect())
    }

    /// Memory of the lab's QEMU processes, and page cache of all files under `dir`.
    ///
    /// # Errors
    ///
    /// If the namespace is gone, or `fincore` does not work.
    pub fn host_memory(&self, dir: &Path) -> Result<HostMemory> {
        let processes = self.qemu_pids()?.into_iter().map(private_memory).sum();
        Ok(HostMemory { processes, cached: cached(&files_under(dir))? })
    }
}

/// All regular files under a directory; what vanishes meanwhile is left out.
#[must_use]
pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files = Vec::new();
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_under(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// Proportional anonymous and shared memory of a process, from proc(5); 0 if it is gone.
fn private_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let wanted = |line: &&str| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:");
    text.lines().filter(wanted).filter_map(kib).sum::<u64>() * 1024
}

/// Bytes of the files that are in the page cache, by fincore(1).
fn cached(files: &[PathBuf]) -> Result<u64> {
    let existing: Vec<_> = files.iter().filter(|file| file.exists()).collect();
    if existing.is_empty() {
        return Ok(0);
    }
    let mut fincore = Command::new("fincore");
    let text = command::stdout(fincore.args(["--bytes", "--noheadings", "--output", "RES"]).args(existing))?;
    let sizes: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    sizes.map(|sizes| sizes.iter().sum()).ok_or(Error::Answer { from: "fincore".into(), answer: text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn counts_what_was_just_written() {
        let dir = PathBuf::from(format!("/var/tmp/dormouse-lab-fincore-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        let file = fs::File::create(dir.join("below/file")).unwrap();
        file.write_all_at(&[1; 8192], 1 << 20).unwrap();
        let files = files_under(&dir);
        let bytes = cached(&files);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((files.len(), bytes.unwrap()), (1, 8192));
        assert_eq!(cached(&[]).unwrap(), 0);
    }

    #[test]
    fn this_process_has_memory_of_its_own() {
        assert!(private_memory(i32::try_from(std::process::id()).unwrap()) > 100_000);
        assert_eq!(private_memory(i32::MAX), 0);
    }
}
