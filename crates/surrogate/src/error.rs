//! Why the surrogate could not do what it was asked.

use std::{io, time::Duration};

use dormouse_sys::{packet, tap};

/// Why the surrogate could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network could not be changed or asked.
    #[error("cannot {what}")]
    Net {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dormouse_net::Error>,
    },
    /// A packet socket could not be had.
    #[error("cannot open a packet socket on {link}")]
    Socket {
        /// The interface.
        link: String,
        /// Why it failed.
        #[source]
        source: packet::Error,
    },
    /// A tap's queue could not be read.
    #[error("cannot read what waits in tap {tap}")]
    Tap {
        /// The tap.
        tap: String,
        /// Why it failed.
        #[source]
        source: tap::Error,
    },
    /// The guest did not read all that was sent to it.
    #[error("the guest left frames unread in {tap} for {grace:?}: it does not respond, or is overloaded")]
    NotDrained {
        /// The tap.
        tap: String,
        /// How long it had.
        grace: Duration,
    },
    /// No thread for a bridge.
    #[error("cannot start the thread that serves bridge {bridge}")]
    Start {
        /// The bridge.
        bridge: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The thread for a bridge is gone, by a fault in this program.
    #[error("the thread that served bridge {0} has ended: restart the daemon")]
    Ended(String),
    /// The kernel gives no random octets.
    #[error("cannot get random octets")]
    Random(#[source] io::Error),
    /// A setting is out of range.
    #[error("setting {key}: {value:?} is not allowed: {allowed}")]
    Setting {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl Error {
    /// To map a network error of doing `what`.
    pub(crate) fn net(what: impl Into<String>) -> impl FnOnce(dormouse_net::Error) -> Self {
        let what = what.into();
        move |source| Self::Net { what, source: Box::new(source) }
    }

    /// To map a packet socket's error on `link`.
    pub(crate) fn socket(link: &str) -> impl FnOnce(packet::Error) -> Self {
        let link = link.to_owned();
        move |source| Self::Socket { link, source }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
