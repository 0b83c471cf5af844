//! A connection with all that belongs to it.

use dormouse_sys::libvirt::{
    Lifecycle, OnEnd, Subscription, on_close, start_event_loop, subscribe, subscribe_devices,
    subscribe_graphics,
};
use tokio::sync::mpsc::UnboundedSender;
use virt::{
    connect::Connect,
    error::{ErrorDomain, ErrorNumber},
};

use super::{Absence, News};

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
    /// Of libvirtd: 9_000_000 is 9.0.0.
    version: u32,
    _events: [Option<Subscription>; 4],
}

#[derive(Debug)]
struct Way {
    /// Dropped before the connection is closed.
    _end: Option<OnEnd>,
    connect: Connect,
}

impl Connection {
    /// Opens all. Takes as long as libvirtd likes.
    pub(super) fn open(uri: &str, epoch: u64, news: &UnboundedSender<News>) -> Result<Self, Absence> {
        let is_final = |error: &virt::error::Error| is_final(uri, error.domain(), error.code());
        let absence = |error: virt::error::Error| Absence { is_final: is_final(&error), why: words(&error) };
        start_event_loop().map_err(|error| format!("its events cannot be had: {error}"))?;
        let main = Way::open(uri, epoch, news).map_err(absence)?;
        let guest = Way::open(uri, epoch, news).map_err(absence)?;
        let work = Way::open(uri, epoch, news).map_err(absence)?;
        let version = main.connect.get_lib_version().map_err(absence)?;
        let told = news.clone();
        // An error means that nobody waits for news any more.
        let told = move |event: Lifecycle| drop(told.send(News::Lifecycle(epoch, event)));
        let life = subscribe(&main.connect, told).map_err(absence)?;
        let devices = |is_added| {
            let told = news.clone();
            let told = move |name, uuid| drop(told.send(News::Devices(epoch, name, uuid)));
            // A driver may not have them.
            let subscribed = subscribe_devices(&main.connect, is_added, told);
            subscribed.inspect_err(|error| tracing::debug!(uri, %error, "devices are not told of")).ok()
        };
        let told = news.clone();
        let told = move |event| drop(told.send(News::Graphics(epoch, event)));
        let screens = subscribe_graphics(&main.connect, told);
        let screens = screens.inspect_err(|error| tracing::debug!(uri, %error, "viewers are not told of"));
        let events = [Some(life), devices(true), devices(false), screens.ok()];
        Ok(Self { main, guest, work, version, _events: events })
    }

    /// What does not work with it because of its age.
    pub(super) fn too_old(&self) -> Option<String> {
        too_old(self.version)
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
    fn open(uri: &str, epoch: u64, news: &UnboundedSender<News>) -> Result<Self, virt::error::Error> {
        let connect = Connect::open(Some(uri))?;
        let mut way = Self { _end: None, connect };
        // A driver within this process has none, and does not hang either.
        match way.connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
            Err(error) if error.code() != ErrorNumber::NoSupport => return Err(error),
            _ => {}
        }
        let told = news.clone();
        let told = move |reason| drop(told.send(News::Closed(epoch, why_closed(reason).to_owned())));
        way._end = Some(on_close(&way.connect, told)?);
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

/// The oldest libvirtd that is meant: `virDomainQemuMonitorCommandWithFiles` came with 8.2.
const OLDEST: u32 = 8_002_000;

fn too_old(version: u32) -> Option<String> {
    let (major, minor) = (version / 1_000_000, version / 1000 % 1000);
    (version < OLDEST).then(|| {
        format!("libvirtd is of version {major}.{minor}, older than 8.2: it can save no domain beside a RAM file, and was not tried")
    })
}

/// Can it never be opened? That libvirtd is not there is no such reason, nor is a driver that it has not loaded.
fn is_final(uri: &str, domain: ErrorDomain, code: ErrorNumber) -> bool {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let kind = scheme.split_once('+').map_or(scheme, |(kind, _)| kind);
    let path = uri.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    // libvirt's own mock is in this process. QEMU's driver may have to begin still, and has these paths.
    domain == ErrorDomain::Uri
        || (domain == ErrorDomain::Qemu && !matches!(path, "system" | "session"))
        || kind == "test"
        || (kind != "qemu" && code == ErrorNumber::NoConnect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uri: &str) -> bool {
        start_event_loop().unwrap();
        let error = Connect::open(Some(uri)).unwrap_err();
        is_final(uri, error.domain(), error.code())
    }

    #[test]
    fn a_uri_that_can_never_be_opened_is_told_from_a_libvirtd_that_is_away() {
        for uri in ["\u{1}", "test:///no/such.xml"] {
            assert!(refused(uri), "{uri:?}");
        }
        assert!(!refused("qemu+unix:///system?socket=/no/such/socket"));
        // As libvirtd says it.
        let driver = |uri| is_final(uri, ErrorDomain::None, ErrorNumber::NoConnect);
        assert!(driver("nonsense:///system") && !driver("qemu:///system"));
        let qemu = |uri| is_final(uri, ErrorDomain::Qemu, ErrorNumber::InternalError);
        assert!(qemu("qemu:///nonsense") && qemu("qemu+ssh://b.invalid/nonsense"));
        assert!(!qemu("qemu:///system") && !qemu("qemu+unix:///session?socket=/x"), "it may be starting");
    }

    #[test]
    fn knows_how_old_libvirtd_is() {
        assert!(too_old(8_001_000).unwrap().contains("8.1"));
        assert_eq!(too_old(8_002_000).or(too_old(9_000_000)), None);
    }
}
