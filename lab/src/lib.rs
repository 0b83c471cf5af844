//! A laboratory for Dormouse: real QEMU guests, a real bridge and a real client on one machine.
//!
//! ```text
//!   namespace ID-cl                    namespace ID-sw
//!  +-----------------+   veth   +---------------------------------+
//!  | eth0 10.9.0.1   |----------| cl0 --- br0 --- taps of guests  |
//!  |      fd77::1    |          |         dormoused, QEMU         |
//!  +-----------------+          +---------------------------------+
//! ```
//!
//! A [`Lab`] makes the two namespaces and a directory on disk, and takes all of it down when dropped.
//! [`Daemon`] runs the built `dormoused` on the switch, [`Client`] measures from the other side, and
//! [`guest`] has the guest image and its machine files; [`Libvirtd`] is a libvirt of the lab's own. Labs have names of their own, so tests run side
//! by side; what a killed test leaves behind, [`Lab::sweep`] removes.
//!
//! Everything here needs root.
#![forbid(unsafe_code)]

mod client;
mod command;
mod crowd;
mod daemon;
mod dhcp;
mod domain;
mod drops;
mod echo;
mod error;
mod events;
pub mod guest;
mod lab;
mod libvirtd;
mod machine;
mod machine_file;
mod memory;
mod namespace;
mod ping;
mod programs;
mod reap;
mod sink;
mod ssh;
mod udp;
mod wait;

pub use client::{ArpReply, Client, Connected, HttpAnswer};
pub use command::Output;
pub use crowd::{Crowd, Woken};
pub use daemon::Daemon;
pub use dhcp::DhcpServer;
pub use domain::Domain;
pub use dormouse_api_types as api;
pub use drops::{Drops, dropped_between};
pub use echo::EchoSession;
pub use error::{Error, Result};
pub use events::EventLog;
pub use lab::Lab;
pub use libvirtd::Libvirtd;
pub use machine_file::Guest;
pub use memory::{HostMemory, files_under};
pub use namespace::Namespace;
pub use reap::reap;
pub use sink::{MemoryCheck, SinkStats};
pub use ssh::SshSession;
pub use udp::{Sent, UdpStream};
pub use wait::{wait_for, wait_until};
