//! A saved state whose memory is a file, on the disk: when it is whole, and that it is used once.
//!
//! For platforms that start the process by other means than [`crate::qemu`] does, and have the same files.

pub use crate::qemu::{
    dir::MachineDir,
    record::{
        Origin, Record, commit, discard, exists, give_back, moved_on, prepare, spent, take, taken, verify,
    },
};
