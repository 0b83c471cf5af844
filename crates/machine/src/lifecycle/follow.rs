//! Following what others than Dormouse did to a machine.

use super::Observed;
use super::engine::Lifecycle;

impl Lifecycle {
    /// Others may have changed the machine.
    pub(super) fn found(&mut self, _seen: Observed, _by: &str) {}
}
