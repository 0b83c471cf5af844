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
/// Where there is no logind it is looked for again so much later, unless fresh locks are wanted.
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
    /// As logind told them last; `None` if it never did.
    list: Option<Arc<[Inhibitor]>>,
    /// When the last try to read them began.
    tried: Option<Instant>,
    /// Why that came to nothing, if it did.
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// There is no logind, and there was none before: nobody can hold a lock.
    Absent,
    /// There is one: whoever held a lock may hold it still.
    Silent,
}

/// Why the locks cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("there is no system bus")]
    NoBus(#[source] zbus::Error),
    #[error("systemd-logind cannot be asked over D-Bus")]
    Bus(#[from] zbus::Error),
    #[error("systemd-logind does not answer")]
    Late(#[from] tokio::time::error::Elapsed),
}

impl Error {
    /// Does the bus say that nobody there is logind?
    fn is_unknown_service(&self) -> bool {
        let Self::Bus(zbus::Error::MethodError(name, ..)) = self else { return false };
        matches!(
            name.as_str(),
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner"
        )
    }
}

/// As `ListInhibitors` gives one: what, who, why, mode, uid, pid.
type Listed = (String, String, String, String, u32, u32);

impl Inhibitors {
    /// By this connection, whose other end or bus has logind.
    #[must_use]
    pub fn over(connection: Connection) -> Self {
        Self(Mutex::new(Inner { connection: Some(connection), ..Inner::default() }))
    }

    /// Those that keep a machine awake; `fresh`: as of now. None where there is no logind; where there is
    /// one that does not answer, those that it told last.
    pub async fn of(&self, name: &MachineName, fresh: bool) -> Vec<Keep> {
        let asked = Instant::now();
        let mut inner = self.0.lock().await;
        // What was read since this was asked is as fresh as what it would read: however many ask at once,
        // two reads are enough.
        let oldest = match inner.failure {
            _ if fresh => Some(asked),
            Some(Failure::Absent) => asked.checked_sub(AGAIN),
            None | Some(Failure::Silent) => asked.checked_sub(GOOD),
        };
        if inner.tried.is_none_or(|at| oldest.is_some_and(|oldest| at < oldest)) {
            inner.refresh().await;
        }
        inner.keeps(name)
    }
}

impl Inner {
    fn keeps(&self, name: &MachineName) -> Vec<Keep> {
        match (&self.list, self.failure) {
            (Some(list), None) => list.iter().filter_map(|inhibitor| inhibitor.keeps(name)).collect(),
            (Some(list), Some(_)) => {
                let last = list.iter().filter_map(|inhibitor| inhibitor.keeps(name));
                let old = |why| format!("{why}; systemd-logind does not answer now");
                last.map(|keep| Keep { why: old(keep.why), ..keep }).collect()
            }
            (None, Some(Failure::Silent)) => {
                let why = "systemd-logind does not tell who holds locks".into();
                vec![Keep { what: "inhibitor", why, until: None }]
            }
            (None, _) => Vec::new(),
        }
    }

    async fn refresh(&mut self) {
        self.tried = Some(Instant::now());
        match timeout(PATIENCE, self.read()).await.map_err(Error::from).flatten() {
            Ok(list) => {
                self.list = Some(list);
                if self.failure.take().is_some() {
                    tracing::info!("inhibitor locks of systemd-logind are read again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) {
        let is_gone = error.is_unknown_service();
        if is_gone {
            self.list = None;
        }
        let is_absent = is_gone || (self.list.is_none() && matches!(error, Error::NoBus(_)));
        let failure = if is_absent { Failure::Absent } else { Failure::Silent };
        if self.failure.replace(failure) != Some(failure) {
            let error = crate::chain::chain(error);
            match failure {
                Failure::Absent => tracing::info!(error, "inhibitor locks keep no machine awake"),
                Failure::Silent => tracing::warn!(error, "inhibitor locks count as they were last"),
            }
        }
        if !matches!(error, Error::Late(_)) {
            self.connection = None;
        }
    }

    async fn read(&mut self) -> Result<Arc<[Inhibitor]>, Error> {
        let bus = match &self.connection {
            Some(bus) => bus.clone(),
            None => self.connection.insert(Connection::system().await.map_err(Error::NoBus)?).clone(),
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
#[path = "../tests/common/logind.rs"]
mod logind;

#[cfg(test)]
mod tests {
    use super::{
        logind::{Logind, connect, lock},
        *,
    };
    use std::sync::Mutex as Shared;
    use zbus::fdo;

    #[tokio::test]
    async fn locks_that_name_a_machine_or_all_keep_it_awake() {
        let web: MachineName = "web".parse().unwrap();
        let logind = Arc::new(Shared::new(Logind::default()));
        logind.lock().unwrap().locks = vec![
            lock("sleep", "dormouse:db", "block"),
            lock("sleep", "backup", "block"),
            lock("shutdown", "dormouse:web", "block"),
            lock("sleep", "dormouse:web", "delay"),
        ];
        let (_server, client) = connect(&logind).await;
        let inhibitors = Inhibitors::over(client);
        assert_eq!(inhibitors.of(&web, false).await, []);
        for who in ["dormouse", "dormouse:web"] {
            logind.lock().unwrap().locks = vec![lock("shutdown:sleep", who, "block")];
            let keeps = inhibitors.of(&web, true).await;
            let [Keep { what: "inhibitor", why, until: None }] = &*keeps else { panic!("{who}: {keeps:?}") };
            assert_eq!(why, "\"backup\", lock of process 42");
        }
        logind.lock().unwrap().locks.clear();
        assert_eq!(inhibitors.of(&web, true).await, []);
    }

    #[tokio::test]
    async fn who_held_a_lock_holds_it_while_logind_does_not_answer() {
        let web: MachineName = "web".parse().unwrap();
        let logind = Arc::new(Shared::new(Logind::default()));
        logind.lock().unwrap().locks = vec![lock("sleep", "dormouse", "block")];
        let (server, client) = connect(&logind).await;
        let inhibitors = Inhibitors::over(client);
        assert_eq!(inhibitors.of(&web, true).await.len(), 1);
        server.close().await.unwrap();
        let keeps = inhibitors.of(&web, true).await;
        let [Keep { what: "inhibitor", why, until: None }] = &*keeps else { panic!("{keeps:?}") };
        assert_eq!(why, "\"backup\", lock of process 42; systemd-logind does not answer now");
        // It is asked again at once, and its word counts.
        logind.lock().unwrap().locks.clear();
        let (_server, client) = connect(&logind).await;
        inhibitors.0.lock().await.connection = Some(client);
        assert_eq!(inhibitors.of(&web, true).await, []);
    }

    #[tokio::test]
    async fn a_logind_that_never_told_keeps_all_awake_and_where_there_is_none_nobody() {
        let web: MachineName = "web".parse().unwrap();
        for (refusal, keeps) in [
            (fdo::Error::Failed("out of order".into()), 1),
            (fdo::Error::ServiceUnknown("not here".into()), 0),
        ] {
            let logind = Arc::new(Shared::new(Logind { refusal: Some(refusal), ..Logind::default() }));
            let (_server, client) = connect(&logind).await;
            let inhibitors = Inhibitors::over(client);
            assert_eq!(inhibitors.of(&web, true).await.len(), keeps);
            assert_eq!(logind.lock().unwrap().reads, 1);
        }
    }

    #[tokio::test]
    async fn however_many_ask_at_once_two_reads_are_enough() {
        let logind = Arc::new(Shared::new(Logind::default()));
        logind.lock().unwrap().locks = vec![lock("sleep", "dormouse", "block")];
        let (_server, client) = connect(&logind).await;
        let inhibitors = Inhibitors::over(client);
        let names: Vec<MachineName> = (0..100).map(|i| format!("vm{i}").parse().unwrap()).collect();
        let all = futures::future::join_all(names.iter().map(|name| inhibitors.of(name, true))).await;
        assert!(all.iter().all(|keeps| keeps.len() == 1), "{all:?}");
        assert!(logind.lock().unwrap().reads <= 2);
    }
}
