//! The daemon's events, as `dormouse events --follow` prints them.

use crate::{Error, Result, command, wait_for};
use dormouse_api_types::Event;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Events, collected in the background until this is dropped.
#[derive(Debug)]
pub struct EventLog {
    child: Child,
    events: Arc<Mutex<Vec<Event>>>,
}

impl EventLog {
    pub(crate) fn follow(mut dormouse: Command) -> Result<Self> {
        dormouse.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = dormouse.spawn().map_err(|source| command::cannot_run(&dormouse, source))?;
        let stdout = child.stdout.take();
        let events = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&events);
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                if let Ok(event) = serde_json::from_str(&line) {
                    theirs.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
            }
        });
        Ok(Self { child, events })
    }

    /// All events up to now.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first event that satisfies a condition; it may be there already.
    ///
    /// # Errors
    ///
    /// If there is none in time; the error has the last that came.
    pub fn wait(&self, what: &str, timeout: Duration, is_it: impl Fn(&Event) -> bool) -> Result<Event> {
        let found = wait_for(what, timeout, || Ok(self.all().into_iter().find(|event| is_it(event))));
        found.map(|(event, _)| event).map_err(|e| match e {
            Error::Timeout { what, waited, .. } => {
                Error::Timeout { what, waited, detail: format!("; the last event: {:?}", self.all().last()) }
            }
            other => other,
        })
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
