//! Inhibitor locks of systemd-logind that keep machines awake: `systemd-inhibit --what=sleep
//! --who=dormouse:web COMMAND`, or any program that takes such a lock over D-Bus
//! (org.freedesktop.login1(5), `ListInhibitors`).
//!
//! Locks against the sleep of the host itself say nothing about machines: only those count whose "who" is
//! `dormouse` (all machines) or `dormouse:NAME`.

use std::{sync::Arc, time::Duration};

use dormouse_machine::idle::Keep;
use dormouse_types::MachineName;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use zbus::Connection;

/// A list is good for so long, unless a fresh one is wanted.
const GOOD: Duration = Duration::from_secs(1);
/// How long logind may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure it is asked again so much later.
const AGAIN: Duration = Duration::from_secs(60);

/// An inhibitor lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhibitor {
    /// What it inhibits, with colons between: `sleep`, `idle`, `shutdown`, ...
    what: String,
    /// By whom.
    who: String,
    /// Why.
    why: String,
    /// `block`, or `delay`, which keeps nobody awake.
    mode: String,
    /// The process that holds it.
    pid: u32,
}

/// The inhibitor locks of this host, read when they are asked for.
#[derive(Debug, Default)]
pub struct Inhibitors(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    connection: Option<Connection>,
    list: Arc<[Inhibitor]>,
    read: Option<Instant>,
    failed: Option<Instant>,
}

/// Why the locks cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("systemd-logind cannot be asked over D-Bus")]
    Bus(#[from] zbus::Error),
    #[error("systemd-logind does not answer")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// As `ListInhibitors` gives one: what, who, why, mode, uid, pid.
type Listed = (String, String, String, String, u32, u32);

impl Inhibitors {
    /// By this connection, whose other end or bus has logind.
    #[must_use]
    pub fn over(connection: Connection) -> Self {
        Self(Mutex::new(Inner { connection: Some(connection), ..Inner::default() }))
    }

    /// Those that keep a machine awake; `fresh`: as of now. None where there is no logind.
    pub async fn of(&self, name: &MachineName, fresh: bool) -> Vec<Keep> {
        let mut inner = self.0.lock().await;
        let is_good = inner.read.is_some_and(|at| at.elapsed() < GOOD) && !fresh;
        let has_failed = inner.failed.is_some_and(|at| at.elapsed() < AGAIN);
        if !is_good && !has_failed {
            inner.refresh().await;
        }
        inner.list.iter().filter_map(|inhibitor| inhibitor.keeps(name)).collect()
    }
}

impl Inner {
    async fn refresh(&mut self) {
        match timeout(PATIENCE, self.read()).await.map_err(Error::from).flatten() {
            Ok(list) => {
                (self.list, self.read) = (list, Some(Instant::now()));
                if self.failed.take().is_some() {
                    tracing::info!("inhibitor locks of systemd-logind are read again");
                }
            }
            Err(error) => {
                if self.failed.is_none() {
                    let error = crate::chain::chain(&error);
                    tracing::info!(error, "inhibitor locks keep no machine awake");
                }
                *self = Self { failed: Some(Instant::now()), ..Self::default() };
            }
        }
    }

    async fn read(&mut self) -> Result<Arc<[Inhibitor]>, Error> {
        let bus = match &self.connection {
            Some(bus) => bus.clone(),
            None => self.connection.insert(Connection::system().await?).clone(),
        };
        let (path, manager) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        let listed =
            bus.call_method(Some("org.freedesktop.login1"), path, Some(manager), "ListInhibitors", &());
        let listed: Vec<Listed> = listed.await?.body().deserialize()?;
        let inhibitor = |(what, who, why, mode, _, pid)| Inhibitor { what, who, why, mode, pid };
        Ok(listed.into_iter().map(inhibitor).collect())
    }
}

impl Inhibitor {
    /// How it keeps this machine awake, if it does.
    fn keeps(&self, name: &MachineName) -> Option<Keep> {
        let Self { what, who, why, mode, pid } = self;
        let is_ours = who == "dormouse" || who.strip_prefix("dormouse:") == Some(name.as_str());
        let is_sleep = what.split(':').any(|what| matches!(what, "sleep" | "idle"));
        let why = format!("{why:?}, lock of process {pid}");
        (is_ours && is_sleep && mode == "block").then_some(Keep { what: "inhibitor", why, until: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as Shared;

    struct Manager(Arc<Shared<Vec<Listed>>>);

    #[zbus::interface(name = "org.freedesktop.login1.Manager")]
    impl Manager {
        fn list_inhibitors(&self) -> Vec<Listed> {
            self.0.lock().unwrap().clone()
        }
    }

    fn lock(what: &str, who: &str, mode: &str) -> Listed {
        (what.into(), who.into(), "backup".into(), mode.into(), 0, 42)
    }

    /// The two ends of a connection, of which one is a logind with these locks.
    async fn logind(locks: &Arc<Shared<Vec<Listed>>>) -> (Connection, Connection) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = zbus::connection::Builder::unix_stream(theirs)
            .server(guid)
            .unwrap()
            .p2p()
            .serve_at("/org/freedesktop/login1", Manager(Arc::clone(locks)))
            .unwrap()
            .build();
        let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::join!(server, client);
        (server.unwrap(), client.unwrap())
    }

    #[tokio::test]
    async fn locks_that_name_a_machine_or_all_keep_it_awake() {
        let web: MachineName = "web".parse().unwrap();
        let locks = Arc::new(Shared::new(vec![
            lock("sleep", "dormouse:db", "block"),
            lock("sleep", "backup", "block"),
            lock("shutdown", "dormouse:web", "block"),
            lock("sleep", "dormouse:web", "delay"),
        ]));
        let (server, client) = logind(&locks).await;
        let inhibitors = Inhibitors::over(client);
        assert_eq!(inhibitors.of(&web, false).await, []);
        for who in ["dormouse", "dormouse:web"] {
            *locks.lock().unwrap() = vec![lock("shutdown:sleep", who, "block")];
            let keeps = inhibitors.of(&web, true).await;
            let [Keep { what: "inhibitor", why, until: None }] = &*keeps else { panic!("{who}: {keeps:?}") };
            assert_eq!(why, "\"backup\", lock of process 42");
        }
        locks.lock().unwrap().clear();
        assert_eq!(inhibitors.of(&web, true).await, []);
        // It ends: there are no locks then.
        *locks.lock().unwrap() = vec![lock("sleep", "dormouse", "block")];
        assert_eq!(inhibitors.of(&web, true).await.len(), 1);
        server.close().await.unwrap();
        assert_eq!(inhibitors.of(&web, true).await, []);
    }
}
