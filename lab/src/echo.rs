//! A TCP session that says back what it is told.

use crate::{Error, Result};
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A session with the guest's echo service, to see whether it goes on after a sleep.
#[derive(Debug)]
pub struct EchoSession {
    stream: TcpStream,
}

impl EchoSession {
    /// A session over a connection to the guest's echo service, port 7.
    ///
    /// # Errors
    ///
    /// If the connection takes no timeout.
    pub fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(Error::net("set a timeout"))?;
        Ok(Self { stream })
    }

    /// Has the client's kernel probe the connection while it is idle; see [`Client::keepalive`].
    ///
    /// [`Client::keepalive`]: crate::Client::keepalive
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn keep_alive(&self) -> Result<()> {
        let set = setsockopt(&self.stream, sockopt::KeepAlive, &true);
        set.map_err(|e| Error::net("set SO_KEEPALIVE")(e.into()))
    }

    /// Sends `text` and waits for the same to come back.
    ///
    /// # Errors
    ///
    /// If the session is dead or says something else.
    pub fn say(&mut self, text: &str) -> Result<Duration> {
        let start = Instant::now();
        let mut answer = vec![0; text.len()];
        self.stream.write_all(text.as_bytes()).map_err(Error::net("write to the echo session"))?;
        self.stream.read_exact(&mut answer).map_err(Error::net("read from the echo session"))?;
        if answer == text.as_bytes() {
            return Ok(start.elapsed());
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Err(Error::Answer { from: "the echo session".into(), answer })
    }

    /// The connection itself.
    #[must_use]
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
