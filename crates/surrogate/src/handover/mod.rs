//! How the last held frame is joined to the first direct one.
//!
//! While a guest's backlog is injected into its tap, the bridge still sends new frames to the
//! surrogate. The moment at which the bridge's path turns to the tap is the *handover*:
//!
//! - [`Ebpf`](ebpf::Ebpf): a program on the bridge port counts the unicast frames of each
//!   address. Once the surrogate has injected exactly that many, one compare-and-swap turns the
//!   count into a redirection, so no frame is ever under way on both paths: nothing is lost,
//!   doubled or overtaken.
//! - [`Plain`]: the forwarding entry is moved and what is still under way is injected after it.
//!   Nothing is lost or doubled; under a high rate a few frames can be overtaken.

pub(crate) mod ebpf;
mod progress;
#[cfg(test)]
mod tests;

use dormouse_types::MacAddr;

pub(crate) use ebpf::Ebpf;
pub(crate) use progress::Progress;

/// Counts an address's frames on the bridge port, redirects or sheds them on demand.
///
/// One per bridge, on its `s0`. Owned by that bridge's thread; calls never block. Any group address
/// stands for all group frames together: they can be counted and shed, not redirected.
pub(crate) trait Handover: Send {
    /// Starts to count frames for `mac` from zero, and to admit all of them. Called before the bridge sends any of
    /// them to the surrogate (or, after a restart, while it already does).
    ///
    /// # Errors
    /// When the table is full or the kernel refuses; the plain handover is used then.
    fn begin(&mut self, mac: MacAddr) -> Result<(), HandoverError>;

    /// Frames counted since `begin`; `None` for an unknown address.
    fn counted(&self, mac: MacAddr) -> Option<u64>;

    /// If exactly `count` frames were counted: redirects every later one to the interface
    /// `tap` (its index) and says true. Otherwise changes nothing.
    ///
    /// `count`: [`Progress::highest`], once all of them are injected. The tap must be able to pass
    /// frames ([`Net::wait_running`](dormouse_net::Net::wait_running)). When this keeps saying no
    /// although nothing more is received, frames were lost before the socket: move the forwarding
    /// entry instead, and count `counted - seen` as dropped. Nothing is shed any more after it.
    fn switch(&mut self, mac: MacAddr, count: u64, tap: u32) -> bool;

    /// Sheds what comes after the frame with the number `up_to` (or one more for each processor
    /// that forwards at the same moment), until that is raised; `u64::MAX` admits everything, as
    /// `begin` does.
    ///
    /// `up_to` = what was read of the address ([`Progress::highest`]) and a window above it, raised
    /// with each batch: then no more than the window waits before the socket's reader, however
    /// many come, and the reader gets as many as it can read. What the socket lost counts as
    /// read once the socket has been empty: take [`Handover::counted`] then, or a window that was
    /// lost as a whole is never opened again.
    fn admit(&mut self, mac: MacAddr, up_to: u64);

    /// Frames shed since this was last asked, or since `begin`. Ask before `end`.
    fn take_shed(&mut self, mac: MacAddr) -> u64;

    /// Forgets `mac`: its frames are neither counted, redirected nor shed. No error if unknown.
    fn end(&mut self, mac: MacAddr);
}

/// The handover without help from the kernel: it never switches by itself.
#[derive(Debug, Default)]
pub(crate) struct Plain;

/// Why an address cannot be handed over by the kernel's help.
#[derive(Debug, thiserror::Error)]
#[error("cannot count the frames of {mac}: {why}")]
pub(crate) struct HandoverError {
    /// The address.
    pub(crate) mac: MacAddr,
    /// What the kernel said.
    pub(crate) why: String,
}

impl Handover for Plain {
    fn begin(&mut self, _: MacAddr) -> Result<(), HandoverError> {
        Ok(())
    }

    fn counted(&self, _: MacAddr) -> Option<u64> {
        None
    }

    fn switch(&mut self, _: MacAddr, _: u64, _: u32) -> bool {
        false
    }

    fn admit(&mut self, _: MacAddr, _: u64) {}

    fn take_shed(&mut self, _: MacAddr) -> u64 {
        0
    }

    fn end(&mut self, _: MacAddr) {}
}
