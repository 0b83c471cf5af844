//! An estimate of energy: a stated model, not a measurement.

use super::Amounts;

const GIB: f64 = (1_u64 << 30) as f64;
const NANOS: f64 = 1e9;

/// The model. A machine is charged for the memory of the host that it occupies, by what the memory draws
/// and by the same share of what the host draws when idle, and for the processor time that it uses:
///
/// ```text
/// joules = GiB-seconds occupied x (memory_watts + idle_watts x cpus / host GiB) + vCPU-seconds x busy_watts
/// ```
///
/// What is saved is what the memory that sleep gave back would have been charged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Watts of a GiB of memory.
    pub memory_watts: f64,
    /// Watts of the host for each of its processors (hardware threads), when idle.
    pub idle_watts: f64,
    /// Watts that a processor draws more when it is busy.
    pub busy_watts: f64,
    /// Processors of the host.
    pub cpus: u32,
    /// Bytes of memory of the host.
    pub memory: u64,
}

impl Energy {
    /// Joules that were used.
    #[must_use]
    pub fn used(&self, amounts: &Amounts) -> f64 {
        self.of_memory(amounts.occupied) + float(amounts.cpu.into()) / NANOS * self.busy_watts
    }

    /// Joules that were not used, for the machine slept.
    #[must_use]
    pub fn saved(&self, amounts: &Amounts) -> f64 {
        self.of_memory(amounts.saved)
    }

    fn of_memory(&self, byte_nanos: u128) -> f64 {
        let host = float(self.memory.into()) / GIB;
        let share = if host > 0.0 { self.idle_watts * f64::from(self.cpus) / host } else { 0.0 };
        float(byte_nanos) / GIB / NANOS * (self.memory_watts + share)
    }
}

/// An amount as it is told.
#[allow(clippy::cast_precision_loss, reason = "a figure for people, of 15 digits")]
pub(super) const fn float(amount: u128) -> f64 {
    amount as f64
}
