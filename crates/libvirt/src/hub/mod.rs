//! A libvirtd, and the way to it: connected for good, again and again.
//!
//! ```text
//!  domains ── call ──► a blocking thread each ──► libvirtd
//!     ▲                                              │ events, end of the connection
//!     └── told, away, back ── task ◄── libvirt's event loop (one thread for all)
//! ```
//!
//! No call blocks the runtime, and none waits for ever: a libvirtd that hangs fails its keepalives, which ends
//! the connection and all calls with it, and each call has a time limit of its own.

mod connection;
mod keeper;
mod lane;
mod reconnect;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use dormouse_platform::{Error, Notice, Obstacle};
use dormouse_sys::libvirt::{Graphics, Lifecycle};
use tokio::{
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
    time::timeout,
};
use virt::{connect::Connect, error::ErrorNumber};
use virt_sys as ffi;

use self::lane::Lanes;
use crate::happening::Happening;

pub(crate) use self::{connection::Connection, lane::Lane};

/// An attempt to connect that takes longer is told of. It is not given up: a second one would hang as well.
const SLOW: Duration = Duration::from_secs(5);

/// One libvirtd, or a driver of libvirt in this process.
#[derive(Debug)]
pub(crate) struct Hub {
    uri: String,
    link: watch::Sender<Link>,
    news: UnboundedSender<News>,
    members: Mutex<Vec<Weak<dyn Member>>>,
    lanes: Lanes,
}

/// Is it connected?
#[derive(Clone, Debug)]
enum Link {
    /// Not yet, or not any more.
    Away(Absence),
    Here(Arc<Connection>),
}

/// Why it cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    why: String,
    /// It never can be, as far as can be told: the URI is wrong.
    is_final: bool,
}

impl From<String> for Absence {
    fn from(why: String) -> Self {
        Self { why, is_final: false }
    }
}

/// What is told to the task of a hub.
#[derive(Debug)]
enum News {
    Lifecycle(u64, Lifecycle),
    /// Of a running domain, by name and UUID.
    Devices(u64, String, String),
    Graphics(u64, Graphics),
    Closed(u64, String),
    Opened(Result<Connection, Absence>),
    Wanted,
    /// The hub is gone.
    End,
}

/// Who is told what happens: a domain.
pub(crate) trait Member: Send + Sync + std::fmt::Debug {
    /// Is it about this domain?
    fn is(&self, domain: &str, uuid: &str) -> bool;
    /// What is to be told when this happened to it.
    fn happened(&self, happening: Happening) -> Option<Notice>;
    /// A device was plugged into it, or out of it, while it runs.
    fn devices_changed(&self) -> Notice;
    /// Somebody comes to its screen, or leaves it.
    fn looked_at(&self, by: Graphics);
    /// libvirt cannot be asked.
    fn away(&self, why: &str) -> Notice;
    /// It can be asked again.
    fn back(&self) -> Notice;
    /// Is its memory in a managed save? Of one that is removed libvirt tells nothing.
    fn relies_on_save(&self) -> bool;
    /// Whether libvirt has its managed save; what is to be told of that.
    fn save_found(&self, found: bool) -> Option<Notice>;
    /// Where notices go.
    fn notices(&self) -> &tokio::sync::mpsc::Sender<Notice>;
}

/// Why a call did not succeed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// libvirt cannot be asked.
    Away(Error),
    /// No answer came in time.
    Slow(Duration),
    /// libvirt refused.
    Said { code: ErrorNumber, message: String },
}

impl CallError {
    /// For the core: what was to be done.
    pub(crate) fn to(self, action: impl Into<String>) -> Error {
        let action = action.into();
        match self {
            Self::Away(error) => error,
            other => Error::Refused { whom: "libvirt", action, source: other.words().into() },
        }
    }

    /// For the user.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Away(error) => error.to_string(),
            Self::Slow(after) => format!("there is no answer after {after:?}"),
            Self::Said { message, .. } => message.clone(),
        }
    }

    pub(crate) const fn code(&self) -> Option<ErrorNumber> {
        match self {
            Self::Said { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<crate::survey::SurveyError> for CallError {
    fn from(error: crate::survey::SurveyError) -> Self {
        match error {
            crate::survey::SurveyError::Libvirt(error) => error.into(),
            error => Self::Said { code: ErrorNumber::XmlError, message: error.to_string() },
        }
    }
}

impl From<virt::error::Error> for CallError {
    fn from(error: virt::error::Error) -> Self {
        Self::Said { code: error.code(), message: connection::words(&error) }
    }
}

impl Hub {
    /// Connects to it from now on. Within a tokio runtime.
    pub(crate) fn start(uri: &str) -> Arc<Self> {
        let (news, told) = unbounded_channel();
        let hub = Arc::new(Self {
            uri: uri.to_owned(),
            link: watch::Sender::new(Link::Away("it is being connected to".to_owned().into())),
            news,
            members: Mutex::default(),
            lanes: Lanes::new(),
        });
        tokio::spawn(keeper::run(Arc::downgrade(&hub), told));
        tokio::spawn(keeper::watch_saves(Arc::downgrade(&hub)));
        hub
    }

    /// Its connection's name.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Has a domain told.
    pub(crate) fn join(&self, member: Weak<dyn Member>) {
        self.members().push(member);
    }

    /// Does `work` with a connection.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Connect) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let connection = self.connection(lane.patience()).await?;
        let room = self.lanes.room(lane);
        let limit = lane.limit();
        let room = timeout(limit, Arc::clone(room).acquire_owned()).await;
        // Nobody closes a lane.
        let room = room.map_err(|_| CallError::Slow(limit))?.ok();
        let by = Arc::downgrade(&connection);
        let call = tokio::task::spawn_blocking(move || {
            let way = match lane {
                Lane::Quick | Lane::Deed => connection.main(),
                Lane::Guest | Lane::Agent => connection.guest(),
                Lane::Work => connection.work(),
            };
            let done = work(way);
            // What cannot tell is in this process.
            let is_cut = done.is_err() && !way.is_alive().unwrap_or(true);
            // Whoever gave up waiting left its place to the thread, which still waits.
            drop((room, connection));
            (done, is_cut)
        });
        match timeout(limit, call).await {
            Ok(Ok((Err(CallError::Said { message, .. }), true))) => {
                self.end_of(&by).await;
                Err(CallError::Away(self.unreachable(message.into())))
            }
            Ok(Ok((done, _))) => done,
            Ok(Err(error)) => Err(CallError::Away(self.unreachable(error.to_string().into()))),
            Err(_) => Err(CallError::Slow(limit)),
        }
    }

    async fn connection(&self, patience: Duration) -> Result<Arc<Connection>, CallError> {
        let mut link = self.link.subscribe();
        if matches!(*link.borrow(), Link::Away(_)) {
            let _ = self.news.send(News::Wanted);
        }
        let is_told = |link: &Link| !matches!(link, Link::Away(Absence { is_final: false, .. }));
        let here = timeout(patience, link.wait_for(is_told)).await;
        drop(here);
        let now = self.link.borrow().clone();
        match now {
            Link::Here(connection) => Ok(connection),
            Link::Away(why) => Err(CallError::Away(self.unreachable(why))),
        }
    }

    /// Returns once a connection that has ended is known to have: the next call waits for another.
    async fn end_of(&self, connection: &Weak<Connection>) {
        let mut link = self.link.subscribe();
        let is_it = |here: &Arc<Connection>| std::ptr::eq(Arc::as_ptr(here), connection.as_ptr());
        let is_over = |link: &Link| !matches!(link, Link::Here(here) if is_it(here));
        drop(timeout(SLOW, link.wait_for(is_over)).await);
    }

    fn unreachable(&self, absence: Absence) -> Error {
        let Absence { why, is_final } = absence;
        if is_final {
            let fix = "write one that `virsh --connect URI list` takes, as qemu:///system";
            return Error::Unsupported(format!(
                "uri {:?}: no libvirt can be reached by it: {why}; {fix}",
                self.uri
            ));
        }
        Error::Unreachable { whom: format!("libvirt ({})", self.uri), why }
    }

    /// What is to be known of a libvirtd that is older than any that was tried.
    pub(crate) fn age_obstacle(&self) -> Option<Obstacle> {
        let Link::Here(connection) = &*self.link.borrow() else { return None };
        let words = connection.too_old()?;
        Some(
            Obstacle::warning("libvirt", words)
                .fix("upgrade libvirt, or choose depth paused, or saved without save = \"ram-file\""),
        )
    }

    fn members(&self) -> MutexGuard<'_, Vec<Weak<dyn Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that still are.
    fn living(&self) -> Vec<Arc<dyn Member>> {
        let mut members = self.members();
        members.retain(|member| member.strong_count() > 0);
        members.iter().filter_map(Weak::upgrade).collect()
    }

    async fn look_at_saves(&self) {
        // A connection that is away is tried again at its own pace.
        let is_here = matches!(*self.link.borrow(), Link::Here(_));
        let relying = || self.living().into_iter().filter(|member| member.relies_on_save());
        let relying: Vec<_> = if is_here { relying().collect() } else { Vec::new() };
        if relying.is_empty() {
            return;
        }
        let saved = self.call(Lane::Quick, |connect| {
            let all = connect.list_all_domains(ffi::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)?;
            all.iter().map(|domain| Ok((domain.get_name()?, domain.get_uuid_string()?))).collect()
        });
        let saved: Vec<(String, String)> = match saved.await {
            Ok(saved) => saved,
            Err(error) => {
                tracing::debug!(uri = self.uri, ?error, "the managed saves cannot be looked after");
                return;
            }
        };
        for member in relying {
            let found = saved.iter().any(|(name, uuid)| member.is(name, uuid));
            if let Some(notice) = member.save_found(found) {
                let _ = member.notices().send(notice).await;
            }
        }
    }

    async fn tell(&self, notice: impl Fn(&dyn Member) -> Option<Notice>) {
        for member in self.living() {
            if let Some(notice) = notice(&*member) {
                // Nobody listens: the daemon ends.
                let _ = member.notices().send(notice).await;
            }
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.news.send(News::End);
        close(self.link.send_replace(Link::Away("the hub is gone".to_owned().into())));
    }
}

/// The last reference to a connection asks libvirt to end it, which may take its time.
fn close(link: Link) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(move || drop(link));
    }
}
