//! Sets of ports.

use alloc::vec::Vec;

/// Ports of a rule: ascending, without repeats, 1 to 65535; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(Vec<u16>);

impl Ports {
    /// All ports.
    pub const ALL: Self = Self(Vec::new());

    /// Is `port` one of them?
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.binary_search(&port).is_ok()
    }

    /// Does this name every port?
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut ports: Vec<u16> = ports.into_iter().filter(|port| *port != 0).collect();
        ports.sort_unstable();
        ports.dedup();
        Self(ports)
    }
}
