//! A connection with all that belongs to it.

use dormouse_sys::libvirt::{
    Lifecycle, OnEnd, Subscription, on_close, start_event_loop, subscribe, subscribe_devices,
};
use tokio::sync::mpsc::UnboundedSender;
use virt::{connect::Connect, error::ErrorNumber};

use super::News;

/// Seconds without a word after which libvirt is asked whether it lives, and how often that may fail. By
/// then a libvirtd that hangs has kept calls waiting for 20 seconds: they fail.
const KEEPALIVE: (i32, u32) = (5, 3);

/// Three ways to one libvirtd, which takes no more than five requests of a client at a time, and answers no
/// keepalive meanwhile: so what takes long, and what waits for guests, have ways of their own.
#[derive(Debug)]
pub(crate) struct Connection {
    /// For events and for what is answered at once.
    main: Way,
    /// For what may wait for a guest.
    guest: Way,
    /// For starts and saves.
    work: Way,
    _events: [Option<Subscription>; 3],
}

#[derive(Debug)]
struct Way {
    /// Dropped before the connection is closed.
    _end: Option<OnEnd>,
    connect: Connect,
}

impl Connection {
    /// Opens all. Takes as long as libvirtd likes.
    pub(super) fn open(uri: &str, epoch: u64, news: &UnboundedSender<News>) -> Result<Self, String> {
        start_event_loop().map_err(|error| format!("its events cannot be had: {error}"))?;
        let main = Way::open(uri, epoch, news)?;
        let guest = Way::open(uri, epoch, news)?;
        let work = Way::open(uri, epoch, news)?;
        let told = news.clone();
        // An error means that nobody waits for news any more.
        let told = move |event: Lifecycle| drop(told.send(News::Lifecycle(epoch, event)));
        let life = subscribe(&main.connect, told).map_err(|error| words(&error))?;
        let devices = |is_added| {
            let told = news.clone();
            let told = move |name, uuid| drop(told.send(News::Devices(epoch, name, uuid)));
            // A driver may not have them.
            let subscribed = subscribe_devices(&main.connect, is_added, told);
            subscribed.inspect_err(|error| tracing::debug!(uri, %error, "devices are not told of")).ok()
        };
        let events = [Some(life), devices(true), devices(false)];
        Ok(Self { main, guest, work, _events: events })
    }

    pub(crate) const fn main(&self) -> &Connect {
        &self.main.connect
    }

    pub(crate) const fn guest(&self) -> &Connect {
        &self.guest.connect
    }

    pub(crate) const fn work(&self) -> &Connect {
        &self.work.connect
    }
}

impl Way {
    fn open(uri: &str, epoch: u64, news: &UnboundedSender<News>) -> Result<Self, String> {
        let connect = Connect::open(Some(uri)).map_err(|error| words(&error))?;
        let mut way = Self { _end: None, connect };
        // A driver within this process has none, and does not hang either.
        match way.connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
            Err(error) if error.code() != ErrorNumber::NoSupport => return Err(words(&error)),
            _ => {}
        }
        let told = news.clone();
        let told = move |reason| drop(told.send(News::Closed(epoch, why_closed(reason).to_owned())));
        way._end = Some(on_close(&way.connect, told).map_err(|error| words(&error))?);
        Ok(way)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self._end = None;
        // It may be closed already.
        let _ = self.connect.close();
    }
}

/// `virConnectCloseReason`
const fn why_closed(reason: i32) -> &'static str {
    match reason {
        1 => "libvirtd has closed the connection: it was stopped, or is being restarted",
        2 => "libvirtd does not answer",
        3 => "the connection was closed",
        _ => "the connection to libvirtd has failed",
    }
}

/// What libvirt says, without its numbers.
pub(crate) fn words(error: &virt::error::Error) -> String {
    error.message().to_owned()
}
