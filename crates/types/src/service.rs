//! TCP services that the stand-in speaks for a sleeper.

use alloc::string::String;

use serde::{Deserialize, Serialize};

/// A port at which connections are taken while the machine sleeps: `[[service]]` of a machine file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The TCP port, 1 to 65535.
    pub port: u16,
    /// What is spoken there.
    pub kind: ServiceKind,
    /// Does a use of it wake the machine?
    pub wakes: bool,
}

/// What a stand-in service speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// HTTP/1: a browser sees a page that says the machine is waking and that reloads by itself;
    /// other clients get the status 503 and are told to try again.
    WakingPage,
    /// What is sent comes back (RFC 862).
    Echo,
    /// This text is sent, then the connection is closed.
    Banner(String),
    /// The connection is taken and closed: enough for a monitor that checks the port.
    Connect,
}

impl ServiceKind {
    /// Its word in machine files.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WakingPage => "waking-page",
            Self::Echo => "echo",
            Self::Banner(_) => "banner",
            Self::Connect => "connect",
        }
    }
}
