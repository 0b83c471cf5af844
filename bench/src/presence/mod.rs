//! The stand-in by itself: thousands of sleepers that no QEMU stands behind, and somebody who asks for
//! them as fast as one core can.
//!
//! ```text
//!   client's namespace           switch's namespace
//!   eth0 --- veth --- cl0 --- br0 --- s0 | s1: dormouse-bench stand-in      (Dormouse)
//!                                  \--- k0 | k1: a namespace with the same addresses   (the kernel)
//! ```

pub(crate) mod answers;
pub(crate) mod flood;
pub(crate) mod frames;
mod process;
pub(crate) mod scale;
mod sender;
pub(crate) mod stand;

use std::net::Ipv4Addr;

pub(crate) use process::{process_cpu, process_memory};

/// The nth sleeper's Ethernet address.
pub(crate) const fn mac(n: u32) -> [u8; 6] {
    let [_, high, middle, low] = n.to_be_bytes();
    [0x52, 0x54, 1, high, middle, low]
}

/// The nth sleeper's IPv4 address, in a network of its own.
pub(crate) fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 1)) + n)
}

/// Whose questions are to be answered: nobody at this address listens.
const ASKER: Ipv4Addr = Ipv4Addr::new(10, 95, 255, 254);
/// The network of both, in bits.
const PREFIX: u8 = 11;
