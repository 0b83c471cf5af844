//! End-to-end tests of Dormouse; see `tests/`. This is what they share.
//!
//! A [`Scene`] is a lab with a daemon and one guest. Its helpers panic where a test would: a
//! failed scene prints the ends of the daemon's and the guest's logs before it goes. A [`DomainScene`] is one
//! with a domain of libvirt.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod crashes;
mod domain;
mod journey;
mod numbered;
mod openvswitch;
mod processes;
mod scene;

pub use crashes::Crashes;
pub use domain::DomainScene;
pub use numbered::Numbered;
pub use openvswitch::OpenVSwitch;
pub use processes::{freeze, kill9, thaw};
pub use scene::{Before, Scene};

use std::time::Duration;

/// One second.
pub const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes on a busy machine without KVM; a test that waits so long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// Samples often, so that a guest is known to be idle within seconds.
pub const FAST_SAMPLES: &str = "sample_interval = \"200ms\"\n";
/// A process stands by for the wake of each sleeper, soon after it fell asleep.
pub const STANDBY: &str = "sample_interval = \"200ms\"\n[standby]\nmemory = \"256MiB\"\nafter = \"100ms\"\n";
/// Room for seconds of a fast stream.
pub const ROOMY: &str = "[limits]\nheld_frames = 400000\nheld_bytes = \"256MiB\"\n";
/// Connections to the guest's services wake it; datagrams to the sink and the echo service are held.
pub const TCP_ONLY: &str = "tcp:22,80,7778,7779";
