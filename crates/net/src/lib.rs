//! Links, bridges and forwarding entries, over netlink.
//!
//! [`Net`] is a handle of one rtnetlink connection in the network namespace in which it was
//! made. Nothing here decides anything: what to set, and when, is the caller's.
#![forbid(unsafe_code)]

mod error;
mod fdb;
mod link;
mod monitor;
mod patience;
mod port;
mod switch;
mod tap;
mod vlan;

pub use error::Error;
pub use fdb::{FdbEntry, FdbState, FdbTarget, FdbTurn};
pub use link::{Link, LinkCounters};
pub use monitor::{LinkEvent, Monitor};
pub use patience::PATIENCE;
pub use port::{MulticastRouter, PortFlags};
pub use switch::{Flooding, Switch, SwitchKind, Turn};
pub use vlan::Vlans;

/// A handle for the network namespace in which it was made; cheap to clone.
///
/// Its methods act on the kernel at once and can be called again after a failure.
#[derive(Clone, Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
}

impl Net {
    /// Opens a netlink socket in the calling thread's network namespace. To be called within a
    /// tokio runtime, where the connection lives until the last clone of the handle is dropped.
    ///
    /// # Errors
    /// When the process is out of descriptors or may not use netlink.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Connect)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}
