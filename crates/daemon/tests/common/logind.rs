//! A systemd-logind of which only the inhibitor locks are there, at the other end of a connection.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use zbus::{Connection, fdo};

/// As `ListInhibitors` gives one: what, who, why, mode, uid, pid.
pub type Lock = (String, String, String, String, u32, u32);

/// What it says, and how often it was asked.
#[derive(Default)]
pub struct Logind {
    pub locks: Vec<Lock>,
    pub reads: usize,
    pub refusal: Option<fdo::Error>,
}

struct Manager(Arc<Mutex<Logind>>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn list_inhibitors(&self) -> fdo::Result<Vec<Lock>> {
        let mut logind = self.0.lock().unwrap();
        logind.reads += 1;
        logind.refusal.clone().map_or_else(|| Ok(logind.locks.clone()), Err)
    }
}

/// A lock of process 42, for a backup.
pub fn lock(what: &str, who: &str, mode: &str) -> Lock {
    (what.into(), who.into(), "backup".into(), mode.into(), 0, 42)
}

/// The two ends of a connection, of which the first is this logind.
pub async fn connect(logind: &Arc<Mutex<Logind>>) -> (Connection, Connection) {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let guid = zbus::Guid::generate();
    let server = zbus::connection::Builder::unix_stream(theirs)
        .server(guid)
        .unwrap()
        .p2p()
        .serve_at("/org/freedesktop/login1", Manager(Arc::clone(logind)))
        .unwrap()
        .build();
    let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::join!(server, client);
    (server.unwrap(), client.unwrap())
}
