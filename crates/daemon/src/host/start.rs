//! The host at its start: machines of an earlier daemon are found again; and at its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dormouse_machine::{lifecycle::State, spec::MachineSpec};
use dormouse_platform::Notice;
use dormouse_registry::{Entry, Record};
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use super::Host;
use crate::{
    chain::chain,
    config::OnStop,
    driver::{Message, Order, Shared, Subject},
    platforms::Platforms,
    room::Rooms,
};

/// How long the creation of a machine that others may run already waits to see whether they do.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// How long it may take until the next machine's addresses are claimed; more are claimed later.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told unasked.
#[derive(Debug)]
pub struct Notices {
    /// By the surrogate.
    pub presence: mpsc::UnboundedReceiver<dormouse_surrogate::Notice>,
    /// By the platforms.
    pub platform: mpsc::Receiver<dormouse_platform::Notice>,
}

/// Why the machines cannot be found again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry cannot be read.
    #[error("cannot recall the machines")]
    Recall(#[source] dormouse_registry::Error),
}

impl Host {
    /// Finds the machines of an earlier daemon, all of them at the same time; returns when every
    /// sleeper is stood in for and every half-done sleep or wake is on its way.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read. A machine that cannot be driven is told of and left alone.
    pub async fn start(
        mut shared: Shared,
        platforms: Arc<dyn Platforms>,
        notices: Notices,
    ) -> Result<Arc<Self>, StartError> {
        let entries = shared.registry.load().await.map_err(StartError::Recall)?;
        let (rooms, desk) = Rooms::open();
        let is_bounded = !shared.config.budget.bounds().is_empty();
        shared.rooms = if is_bounded { rooms } else { Rooms::default() };
        let host = Arc::new(Self {
            shared,
            platforms,
            machines: std::sync::RwLock::new(BTreeMap::new()),
            lost: std::sync::RwLock::default(),
            admitting: tokio::sync::Mutex::new(()),
        });
        if is_bounded {
            super::budget::start(&host, desk);
        }
        let mut recovered: FuturesUnordered<_> =
            entries.into_iter().filter_map(|entry| host.recall(entry)).collect();
        host.route(notices);
        let count = recovered.len();
        // One whose driver has ended will not claim anything either.
        while let Ok(Some(_)) = tokio::time::timeout(PATIENCE, recovered.next()).await {}
        let missing = recovered.len();
        if missing > 0 {
            tracing::warn!(
                missing,
                "some machines are not recovered, and none was for {PATIENCE:?}; going on without them"
            );
        }
        if let Err(error) = host.shared.presence.settle().await {
            tracing::warn!(error = chain(&error), "addresses of an earlier daemon may be left on a bridge");
        }
        super::pool::start(&host);
        super::redefine::start(&host);
        crate::meters::start_keeper(&host);
        tracing::info!(machines = count - missing, "recovered");
        Ok(host)
    }

    fn recall(self: &Arc<Self>, entry: Entry) -> Option<oneshot::Receiver<()>> {
        let (revision, record) = match entry.record {
            Ok(found) => found,
            Err(error) => {
                self.lose(&entry.name, None, chain(&error));
                return None;
            }
        };
        match self.instance(&record) {
            Ok((spec, instance)) => Some(self.drive(Subject { spec, instance, record, revision }, true).1),
            Err(why) => {
                self.lose(&entry.name, Some(record), why);
                None
            }
        }
    }

    pub(super) fn instance(
        &self,
        record: &Record,
    ) -> Result<(Arc<MachineSpec>, Arc<dyn dormouse_platform::Instance>), String> {
        let spec = MachineSpec::from_toml(&record.file, &record.base)
            .map_err(|errors| format!("its file is no longer understood: {errors}"))?;
        let instance = self.platforms.instance(&spec).map_err(|error| chain(&error))?;
        Ok((Arc::new(spec), instance))
    }

    /// Gives notices to the drivers that they are about.
    fn route(self: &Arc<Self>, notices: Notices) {
        let Notices { mut presence, mut platform } = notices;
        let host = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(notice) = presence.recv().await {
                host.route_presence(notice).await;
            }
        });
        let host = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(notice) = platform.recv().await {
                if let Ok(handle) = host.find(notice.machine()) {
                    let is_new = matches!(notice, Notice::Redefined(_));
                    handle.tell(Message::Platform(notice)).await;
                    if is_new {
                        host.look_again(&handle.name);
                    }
                }
            }
        });
    }

    async fn route_presence(&self, notice: dormouse_surrogate::Notice) {
        use dormouse_surrogate::Notice::{BridgeBack, BridgeLost, Heard, Learned, Persona, Wake};
        match &notice {
            Wake { name, .. } | Heard { name } | Learned { name, .. } | Persona { name, .. } => {
                if let Ok(handle) = self.find(name) {
                    handle.tell(Message::Presence(notice)).await;
                }
            }
            BridgeLost { bridge, .. } | BridgeBack { bridge } => {
                if let BridgeLost { why, .. } = &notice {
                    tracing::error!(bridge, why, "a bridge is lost: nobody is answered for there");
                }
                for handle in self.handles() {
                    if handle.spec.interfaces.iter().any(|i| i.bridge == *bridge) {
                        handle.tell(Message::Presence(notice.clone())).await;
                    }
                }
            }
        }
    }

    /// The daemon is told to end: what the configuration wants of running machines.
    pub async fn stop(&self) {
        let handles = self.handles();
        let asleep = |handle: &&crate::driver::Handle| matches!(handle.view().state, State::Asleep { .. });
        if self.config().on_stop == OnStop::Sleep {
            let awake = handles.iter().filter(|handle| handle.view().state == State::Active);
            let patience = self.config().limits.command_wait.get();
            let orders = awake.map(|handle| async move {
                if let Err(problem) = handle.order(Order::Sleep { depth: None }, true, patience).await {
                    tracing::warn!(machine = %handle.name, "is left running: {problem}");
                }
            });
            join_all(orders).await;
        }
        self.cool_all().await;
        self.write_usage(crate::meters::Which::All).await;
        let sleepers = handles.iter().filter(asleep).count();
        if sleepers > 0 {
            tracing::warn!(sleepers, "ending: nobody answers for the sleepers until dormoused is back");
        }
    }
}
