//! Telling scanners from clients: one source that tries many ports or many machines.

use alloc::vec::Vec;
use core::time::Duration;

use dormouse_types::Timestamp;
use ipnet::IpNet;

use crate::frame::Frame;

/// What makes a source a scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// As many different ports (TCP, UDP, SCTP; of one machine or of several) within `within`; 0 counts none.
    pub ports: u32,
    /// As many different addresses (asked for by ARP or NDP, or sent to) within `within`; 0 counts none.
    pub machines: u32,
    /// The time; and how long a scanner must try nothing new to be none any more.
    pub within: Duration,
    /// Sources that never are.
    pub trusted: Vec<IpNet>,
}

impl ScanLimits {
    /// The largest limits: so much is remembered of each source. What is above counts as this.
    pub const MOST: u32 = 256;
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { ports: 10, machines: 32, within: Duration::from_secs(10), trusted: Vec::new() }
    }
}

/// The sources of one network, and what each of them tried. Bounded, whatever comes.
#[derive(Debug)]
pub struct Scanners {
    _limits: ScanLimits,
}

impl Scanners {
    /// Knows nobody yet.
    #[must_use]
    pub const fn new(limits: ScanLimits) -> Self {
        Self { _limits: limits }
    }

    /// Takes note of a frame; is its source a scanner, this frame counted?
    ///
    /// A source is an IP address, or the Ethernet address of a frame without one.
    pub fn note(&mut self, _frame: &Frame<'_>, _now: Timestamp) -> bool {
        false
    }
}
