//! What becomes of a sleeper's lease.

use serde::{Deserialize, Serialize};

/// What becomes of a sleeper's DHCP lease when it is due for renewal (T1, RFC 2131 §4.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeasePolicy {
    /// The stand-in renews it. The machine is woken if a server refuses, or if all stay silent
    /// until half of the time between T2 and the end has passed.
    #[default]
    Renew,
    /// The machine is woken at T1 and renews it itself.
    Wake,
    /// Nothing: the lease runs out.
    Ignore,
}
