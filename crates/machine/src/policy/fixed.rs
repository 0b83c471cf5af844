//! Sleep after a fixed idle time.

use std::time::Duration;

use dormouse_types::Timestamp;

use super::{Plan, Policy, words};

/// Sleeps when the machine was idle for a fixed time; learns nothing.
#[derive(Clone, Debug)]
pub struct Fixed {
    idle_after: Option<Duration>,
    idle_since: Option<Timestamp>,
}

impl Fixed {
    /// For a machine in use; `None` never sleeps by itself.
    #[must_use]
    pub const fn new(idle_after: Option<Duration>) -> Self {
        Self { idle_after, idle_since: None }
    }
}

impl Policy for Fixed {
    fn turned(&mut self, busy: bool, at: Timestamp) {
        self.idle_since = if busy { None } else { self.idle_since.or(Some(at)) };
    }

    fn sleep_at(&self, _now: Timestamp) -> Option<Plan> {
        let (since, after) = self.idle_since.zip(self.idle_after)?;
        Some(Plan { at: since + after, why: format!("sleeps after {} idle", words(after)) })
    }

    fn wake_at(&self, _now: Timestamp) -> Option<Plan> {
        None
    }

    fn memory(&self) -> Option<serde_json::Value> {
        None
    }
}
