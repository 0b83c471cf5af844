//! Memory that files occupy, and membarrier.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::io::Write;

use dormouse_sys::{membarrier_global, memory};

#[test]
fn a_file_is_seen_in_memory_and_given_back() {
    // Not in /tmp, which may be a tmpfs: that has no other place for its pages.
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(&vec![0xab; 8 << 20]).unwrap();
    file.as_file().sync_all().unwrap();
    assert_eq!(memory::resident_bytes(file.path()).unwrap(), 8 << 20);
    memory::evict(file.as_file()).unwrap();
    assert!(memory::resident_bytes(file.path()).unwrap() < 1 << 20);
    std::fs::read(file.path()).unwrap();
    assert_eq!(memory::resident_bytes(file.path()).unwrap(), 8 << 20);
}

#[test]
fn holes_and_empty_files_occupy_nothing() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    assert_eq!(memory::resident_bytes(file.path()).unwrap(), 0);
    file.as_file().set_len((3 << 30) + 5).unwrap();
    assert_eq!(memory::resident_bytes(file.path()).unwrap(), 0);
    assert!(memory::resident_bytes("/nonexistent").is_err());
}

#[test]
fn a_grace_period_passes() {
    membarrier_global().unwrap();
}
