//! The system calls that have no safe door in Rust: packet sockets, taps, mapped BPF arrays.
//!
//! The only crate of the workspace with `unsafe` code; every block says why it is sound, and no
//! function that leaves the crate is unsafe. Nothing here knows about machines or policies. All
//! of it acts in the network namespace of the calling thread.
#![allow(unsafe_code)]

#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod memory;
pub mod packet;
pub mod paging;
mod session;
pub mod shared;
pub mod tap;

pub use packet::{Batch, Frame, PacketSocket, SendError, VlanTag, VnetHdr};
pub use session::set_apart;
pub use shared::{SharedWords, membarrier_global};
