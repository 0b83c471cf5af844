//! A guest's clock stands still as long as its processors do: its agent sets it after a wake.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::Inner;
use crate::clock::now;

/// A clock that is behind by less is left alone.
const BEHIND: Duration = Duration::from_secs(1);
/// Pauses between tries: the agent of a guest that was just restored may still have to be heard.
const TRIES: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

impl Inner {
    /// The guest has just been let run: has its clock set, if that stood still. Nobody waits for it.
    pub(super) fn mind_clock(self: &Arc<Self>) {
        let mut known = self.known();
        let stood_still = known.still_since.take().is_some_and(|since| since.elapsed() >= BEHIND);
        let is_behind = std::mem::take(&mut known.is_clock_behind) || stood_still;
        drop(known);
        if is_behind {
            let domain = Arc::clone(self);
            tokio::spawn(async move { domain.set_clock().await });
        }
    }

    async fn set_clock(&self) {
        match self.description().await {
            Ok(description) if !description.has_guest_agent() => {
                return self.tell_clock("it has no channel for a guest agent");
            }
            Ok(_) => {}
            Err(error) => return self.tell_clock(&error.to_string()),
        }
        let mut why = String::new();
        for pause in TRIES {
            tokio::time::sleep(pause).await;
            let set = self.ask_agent(|domain| {
                let time = Duration::from_nanos(now().0);
                let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
                let (seconds, nanos) =
                    (i64::try_from(seconds).unwrap_or(0), i32::try_from(nanos).unwrap_or(0));
                Ok(domain.set_time(seconds, nanos, 0).map(drop)?)
            });
            match set.await {
                Ok(()) => {
                    tracing::debug!(domain = self.who.name, "its guest's clock is set");
                    return;
                }
                Err(error) => why = format!("{error:?}"),
            }
        }
        self.tell_clock(&why);
    }

    /// Once: it will be so at every wake.
    fn tell_clock(&self, why: &str) {
        if !self.clock_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                domain = self.who.name,
                why,
                "its guest's clock stays behind by the time that it slept: install qemu-guest-agent in it, and give \
                 the domain its channel (org.qemu.guest_agent.0)"
            );
        }
    }
}
