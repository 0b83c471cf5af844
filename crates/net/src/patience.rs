//! Waiting for what the kernel does some time after it said yes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long operations wait for the kernel to follow: it does within a few milliseconds.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Tries again every millisecond until a deadline.
pub(crate) struct Patience {
    end: Instant,
}

impl Patience {
    pub(crate) fn new(length: Duration) -> Self {
        Self { end: Instant::now() + length }
    }

    /// Waits until the next try; false when there is to be none.
    pub(crate) async fn wait(&mut self) -> bool {
        let more = Instant::now() < self.end;
        if more {
            sleep(Duration::from_millis(1)).await;
        }
        more
    }
}
