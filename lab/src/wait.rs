//! Waiting for what another process will do.

use crate::{Error, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks again and again until there is an answer; how long that took comes with it.
///
/// # Errors
///
/// [`Error::Timeout`] if there is none within `timeout`, or what `ask` reports.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok((answer, start.elapsed()));
        }
        if start.elapsed() >= timeout {
            return Err(Error::Timeout { what: what.into(), waited: timeout, detail: String::new() });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// As [`wait_for`], for a question answered by yes or no.
///
/// # Errors
///
/// As [`wait_for`].
pub fn wait_until(what: &str, timeout: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<Duration> {
    wait_for(what, timeout, || Ok(ask()?.then_some(()))).map(|((), took)| took)
}
