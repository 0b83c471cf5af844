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

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

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
    /// For requests under way: see [`UNDER_WAY`].
    gate: Arc<Semaphore>,
}

/// Requests under way at a time. Their answers wait in the socket's buffer (208 KiB by default, of
/// which an answer takes up to 5): what does not fit there is lost, and nobody is told.
const UNDER_WAY: usize = 32;

/// The kernel answers at once; what takes longer will never come.
const ANSWER: Duration = Duration::from_secs(30);

impl Net {
    /// Opens a netlink socket in the calling thread's network namespace. To be called within a
    /// tokio runtime, where the connection lives until the last clone of the handle is dropped.
    ///
    /// # Errors
    /// When the process is out of descriptors or may not use netlink.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Connect)?;
        tokio::spawn(connection);
        Ok(Self { handle, gate: Arc::new(Semaphore::new(UNDER_WAY)) })
    }

    /// Sends a request when its turn has come, and waits for the answer.
    async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, rtnetlink::Error> {
        // The gate is never closed; without a permit there would be no harm but for a full buffer.
        let _turn = self.gate.acquire().await;
        tokio::time::timeout(ANSWER, request).await.unwrap_or(Err(rtnetlink::Error::RequestFailed))
    }
}
