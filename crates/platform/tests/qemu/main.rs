//! The QEMU driver on real guests. Needs root, QEMU and the lab's guest image.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod bench;
mod devices;
mod failure;
mod network;
mod page_out;
mod prefetch;
mod restart;
mod sleep;
mod standby;
