//! What stands in the way of one machine's sleep.

use dormouse_api_types::{Problem, Report};
use dormouse_types::MachineName;

use super::{Host, admission};
use crate::doctor::{self, Patient};

impl Host {
    /// What stands in the way of a machine's sleep, at each depth, and how to put it right.
    ///
    /// # Errors
    ///
    /// When there is no such machine.
    pub async fn examine(&self, name: &MachineName) -> Result<Report, Problem> {
        if let Some(lost) = self.lost().get(name) {
            return Ok(Report { checks: vec![doctor::lost_machine(name, &lost.why)] });
        }
        let handle = self.find(name)?;
        // What it can do is judged by what is found now.
        let obstacles = handle.instance.obstacles().await;
        let abilities = handle.instance.capabilities();
        let patient = Patient {
            spec: std::sync::Arc::clone(&handle.spec),
            view: handle.view(),
            obstacles,
            depths: abilities.depths,
            now: self.shared.clock.now(),
        };
        let bridges = admission::bridges(&handle.spec).collect();
        let report = tokio::task::spawn_blocking(move || doctor::examine_machine(&patient, bridges)).await;
        Ok(report.unwrap_or_default())
    }
}
