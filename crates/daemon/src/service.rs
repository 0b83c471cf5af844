//! The daemon put together: what it opens at its start, in order, and gives up at its end.

use std::{collections::BTreeMap, fs, io, path::PathBuf, sync::Arc};

use dormouse_external::External;
use dormouse_net::Net;
use dormouse_registry::Redb;
use dormouse_surrogate::{Settings, Surrogate};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    api::{ServeError, Server},
    clock::{Clock, SystemClock},
    config::{Config, Handover, UserProgram},
    driver::Shared,
    events::Events,
    fault::Fault,
    host::{Host, Notices, StartError},
    meters::Meters,
    platforms::Local,
    room::Rooms,
    watchdog,
};

/// Notices of platforms that wait; they come one for each process that ends.
const NOTICES: usize = 1024;

/// Why the daemon does not run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The registry cannot be opened.
    #[error("cannot open the registry")]
    Registry(#[source] dormouse_registry::Error),
    /// The network cannot be reached.
    #[error("cannot reach the kernel's network configuration")]
    Net(#[source] dormouse_net::Error),
    /// The surrogate cannot start.
    #[error("cannot start the surrogate")]
    Surrogate(#[source] dormouse_surrogate::Error),
    /// Machines cannot be found again.
    #[error("cannot find the machines again")]
    Start(#[source] StartError),
    /// The API cannot be served.
    #[error("cannot serve the API")]
    Serve(#[source] ServeError),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT. Machines that run go on without the daemon.
///
/// # Errors
///
/// When something that it needs cannot be had.
pub async fn run(config: Config, fault: Fault) -> Result<(), ServiceError> {
    let config = Arc::new(config);
    raise_descriptors();
    let mut stop = Stop::new().map_err(ServiceError::Signals)?;
    let registry = open_registry(&config).await?;
    let (surrogate, presence) =
        Surrogate::start(surrogate_settings(&config)).await.map_err(ServiceError::Surrogate)?;
    let (platform_notices, platform) = mpsc::channel(NOTICES);
    let net = Net::connect().map_err(ServiceError::Net)?;
    let platforms = Arc::new(Local::new(&config, net, platform_notices));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let meters = Meters::open(Arc::new(registry.clone()), Arc::clone(&clock)).await;
    let shared = Shared {
        registry: Arc::new(registry),
        meters: meters.map_err(ServiceError::Registry)?,
        presence: Arc::new(surrogate),
        events: Events::new(config.event_history, Arc::clone(&clock)),
        clock,
        config: Arc::clone(&config),
        inhibitors: Arc::default(),
        policies: Arc::new(policies(&config)),
        rooms: Rooms::default(),
        fault,
    };
    let notices = Notices { presence, platform };
    let host = Host::start(shared, platforms, notices).await.map_err(ServiceError::Start)?;
    let server = Server::bind(&config.socket, &config.socket_group).await.map_err(ServiceError::Serve)?;
    tracing::info!(socket = %config.socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    notify(&[NotifyState::Ready]);
    if let Some(span) = sd_notify::watchdog_enabled() {
        let (host, socket) = (Arc::clone(&host), config.socket.clone());
        tokio::spawn(async move { watchdog::attest(host, &socket, span).await });
    }
    let until = {
        let host = Arc::clone(&host);
        async move {
            stop.wait().await;
            notify(&[NotifyState::Stopping]);
            host.stop().await;
        }
    };
    server.serve(host, until).await.map_err(ServiceError::Serve)
}

/// As many descriptors as are allowed: most systems let a process have 1024 until it asks for more.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors: some thousand machines may be too many");
    }
}

async fn open_registry(config: &Config) -> Result<Redb, ServiceError> {
    let path = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&path).map_err(|source| ServiceError::StateDir { path: path.clone(), source })?;
        Redb::open(&path).map_err(ServiceError::Registry)
    });
    opened.await.unwrap_or(Err(ServiceError::Registry(dormouse_registry::Error::Closed)))
}

/// The programs of `[policy]`; each is started when it is first asked.
#[must_use]
pub fn policies(config: &Config) -> BTreeMap<String, External> {
    let root = nix::unistd::geteuid().is_root();
    let program =
        |(name, policy): (&String, &UserProgram)| (name.clone(), External::new(policy.program(name, root)));
    config.policy.iter().map(program).collect()
}

fn surrogate_settings(config: &Config) -> Settings {
    let root = nix::unistd::geteuid().is_root();
    let programs = config.responder.iter().map(|(name, responder)| responder.program(name, root));
    Settings {
        plain_handover: config.network.handover == Handover::Plain,
        held_total: u64::try_from(config.limits.held_total).unwrap_or(u64::MAX),
        scan: config.scan.limits(),
        externals: programs.collect(),
        ..Settings::default()
    }
}

/// Tells systemd, if it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd of our state");
    }
}

/// The signals that end the daemon.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "ending; machines that run go on by themselves");
    }
}
