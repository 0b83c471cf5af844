//! Why an operation on the network failed.

use std::io;

/// Why an operation on the network failed; names the thing and, where there is one, the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No netlink socket.
    #[error("cannot talk netlink to the kernel")]
    Connect(#[source] io::Error),
    /// There is no link of this name (or `#index`).
    #[error("there is no network interface {0}")]
    NoLink(String),
    /// The bridge does not exist.
    #[error(
        "there is no bridge {0}: make it with `ip link add {0} type bridge`, or name another in the machine file"
    )]
    NoBridge(String),
    /// The link is something else.
    #[error(
        "{0} is not a bridge: name a Linux bridge in the machine file, or one of Open vSwitch's, which has to run"
    )]
    NotABridge(String),
    /// Open vSwitch refused, or could not be asked.
    #[error("`{what}` failed: {said}")]
    OpenVSwitch {
        /// The program and its arguments.
        what: String,
        /// What it said.
        said: String,
    },
    /// The process may not change the network.
    #[error("not allowed to {what}: grant CAP_NET_ADMIN")]
    NotAllowed {
        /// The operation.
        what: String,
    },
    /// The kernel took a port flag without setting it.
    #[error("the kernel did not set {flag} on bridge port {port}: it needs a newer one")]
    FlagIgnored {
        /// The port's name.
        port: String,
        /// The flag, as `bridge -d link` calls it.
        flag: &'static str,
    },
    /// The bridge port is down or has no carrier: nobody has the tap open.
    #[error(
        "bridge port {port} is not up: no address can move to it before a guest has it open and it is set up"
    )]
    PortDown {
        /// The port's name.
        port: String,
    },
    /// The tap could not be had.
    #[error(transparent)]
    Tap(#[from] dormouse_sys::tap::Error),
    /// A file below /proc/sys could not be written.
    #[error("cannot set {path}")]
    Sysctl {
        /// The file.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another refusal by the kernel.
    #[error("cannot {what}")]
    Netlink {
        /// The operation.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The error for an operation that netlink refused.
    pub(crate) fn netlink(what: impl FnOnce() -> String, error: rtnetlink::Error) -> Self {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        };
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotAllowed { what: what() },
            _ => Self::Netlink { what: what(), source },
        }
    }
}
