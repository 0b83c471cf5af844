//! All machines of this host: who they are, and the way to the driver of each.

mod admission;
mod answers;
mod budget;
mod examine;
mod import;
mod lost;
mod pool;
mod redefine;
mod start;
mod supervise;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use dormouse_api_types::{
    CreateMachine, EventKind, MachineDetail, MachineSummary, Problem, ProblemKind, Report, UsageQuery,
    UsageReport, WakeTest, WakeTestRequest, Why,
};
use dormouse_machine::{
    lifecycle::State,
    spec::{InterfaceSpec, MachineSpec},
};
use dormouse_platform::Capabilities;
use dormouse_registry::{Expect, Record, Registry, Transaction};
use dormouse_types::{MacAddr, MachineName};
use futures::future::join_all;

use crate::{
    config::Config,
    doctor,
    driver::{Given, Handle, Order, Shared, Subject},
    events::{Draft, Events},
    meters::{self, Meters},
    platforms::{Platforms, abilities},
};

pub use start::{Notices, StartError};

/// The machines of this host.
pub struct Host {
    shared: Shared,
    platforms: Arc<dyn Platforms>,
    machines: RwLock<BTreeMap<MachineName, Handle>>,
    /// Machines that are remembered and cannot be driven, and why.
    lost: RwLock<BTreeMap<MachineName, lost::Lost>>,
    /// Only one machine is admitted at a time, so that two cannot claim the same address.
    admitting: tokio::sync::Mutex<()>,
}

/// A machine that is to be made known.
struct Newcomer {
    toml: String,
    base: PathBuf,
    spec: MachineSpec,
    /// Where it is in its life, if that is known.
    state: Option<State>,
    /// Addresses that its guest seems to have.
    hints: BTreeMap<MacAddr, Vec<IpAddr>>,
}

impl Host {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// All machines, by name.
    pub async fn list(&self) -> Vec<MachineSummary> {
        let handles = self.handles();
        let mut list = join_all(handles.iter().map(|handle| answers::summary(&self.shared, handle))).await;
        list.extend(self.lost().iter().map(|(name, lost)| lost.summary(name)));
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// All that is known of a machine.
    ///
    /// # Errors
    ///
    /// When there is no such machine.
    pub async fn show(&self, name: &MachineName) -> Result<MachineDetail, Problem> {
        match self.lost().get(name) {
            Some(lost) => Ok(lost.detail(name)),
            None => Ok(answers::detail(&self.shared, &self.find(name)?).await),
        }
    }

    /// Why a machine is where it is.
    ///
    /// # Errors
    ///
    /// When there is no such machine.
    pub async fn why(&self, name: &MachineName) -> Result<Why, Problem> {
        let handle = self.find(name)?;
        let why = answers::why(&self.shared, &handle).await;
        Ok(self.told_of_budgets(&handle, why))
    }

    /// What would become of a frame if a machine slept.
    ///
    /// # Errors
    ///
    /// When there is no such machine or interface, or the frame's description is not understood.
    pub async fn wake_test(
        &self,
        name: &MachineName,
        request: &WakeTestRequest,
    ) -> Result<WakeTest, Problem> {
        answers::wake_test(&self.shared, &self.find(name)?, request).await
    }

    /// Gives an order; waits until the machine has settled if `wait`.
    ///
    /// # Errors
    ///
    /// When there is no such machine, the order is refused, or it failed.
    pub async fn order(&self, name: &MachineName, order: Order, wait: bool) -> Result<Given, Problem> {
        let handle = self.find(name)?;
        handle.order(order, wait, self.config().limits.command_wait.get()).await
    }

    /// Makes a machine known.
    ///
    /// # Errors
    ///
    /// When its file is not as it should be, or its name or an address is taken.
    pub async fn create(self: &Arc<Self>, request: CreateMachine) -> Result<MachineDetail, Problem> {
        let CreateMachine { toml, base } = request;
        let spec = admission::read(&toml, &base)?;
        let newcomer = Newcomer { toml, base, spec, state: None, hints: BTreeMap::new() };
        let handle = self.admit(newcomer).await?;
        Ok(answers::detail(&self.shared, &handle).await)
    }

    /// Makes a machine known, if nothing is in its way.
    async fn admit(self: &Arc<Self>, newcomer: Newcomer) -> Result<Handle, Problem> {
        let Newcomer { toml, base, spec, state, hints } = newcomer;
        admission::check_files(&spec)?;
        admission::check_zone(&spec)?;
        admission::check_policy(&spec, self.config())?;
        admission::check_responders(&spec, self.config())?;
        let instance = self.platforms.instance(&spec).map_err(|error| admission::unsupported(&error))?;
        admission::check_guest(&spec, &*instance)?;
        let abilities = abilities(&*instance).await;
        admission::check_depth(&spec, &abilities)?;
        let admitting = self.admitting.lock().await;
        admission::check_claims(&spec, &self.claims(), &self.lost())?;
        // What others look after too is as they have left it.
        let is_shared = instance.shape().shared;
        let state = match state {
            None if is_shared => admission::state_found(&*instance).await?,
            state => state.unwrap_or(State::Stopped),
        };
        let mut record = Record::new(spec.name.clone(), toml, base, self.shared.clock.now());
        (record.state, record.learned) = (state, hints);
        let transaction = Transaction::put(Expect::Absent, record.clone());
        let committed = self.shared.registry.commit(transaction).await;
        let revision = committed.map_err(|error| admission::not_remembered(&spec.name, &error))?;
        let spec = Arc::new(spec);
        let subject = Subject { spec: Arc::clone(&spec), instance, record, revision };
        let (handle, found) = self.drive(subject, is_shared);
        drop(admitting);
        self.tell_created(&spec, &abilities);
        if is_shared {
            // What takes longer is seen later.
            let _ = tokio::time::timeout(start::LOOK, found).await;
        }
        Ok(handle)
    }

    /// What the machines of this host have for themselves.
    fn claims(&self) -> Vec<Arc<MachineSpec>> {
        self.handles().iter().map(|handle| Arc::clone(&handle.spec)).collect()
    }

    fn tell_created(&self, spec: &MachineSpec, abilities: &Capabilities) {
        self.events().publish(Draft::of(&spec.name, EventKind::Created));
        let missing = |interface: &InterfaceSpec| {
            format!("there is no bridge {} yet: make it before the machine starts", interface.bridge)
        };
        let bridges = admission::without_bridge(spec).map(missing);
        for why in bridges.chain(admission::not_deeper(spec, abilities)) {
            tracing::warn!(machine = %spec.name, "{why}");
            self.events().publish(Draft::of(&spec.name, EventKind::Warning).cause(Some(why)));
        }
    }

    /// Forgets a machine; its disks stay.
    ///
    /// # Errors
    ///
    /// When there is no such machine, or `force` is not given and it sleeps, or runs and is nobody else's.
    pub async fn remove(&self, name: &MachineName, force: bool) -> Result<(), Problem> {
        if force && self.lost().contains_key(name) {
            self.forget_lost(name).await?;
        } else {
            self.find(name)?.remove(force).await?;
            self.write().remove(name);
        }
        self.events().publish(Draft::of(name, EventKind::Removed));
        Ok(())
    }

    /// Returns when every bridge with a sleeper has said that its thread lives.
    pub async fn prove_presence(&self) {
        let handles = self.handles();
        let asleep = handles.iter().filter(|h| h.peek(|view| matches!(view.state, State::Asleep { .. })));
        // One of thousands is enough for a bridge: it is asked for on all of its bridges.
        let mut proven = BTreeSet::new();
        let proofs = asleep.filter(|h| h.spec.interfaces.iter().any(|i| proven.insert(i.bridge.as_str())));
        join_all(proofs.map(|handle| self.shared.presence.status(&handle.name))).await;
    }

    /// What machines used.
    ///
    /// # Errors
    ///
    /// When it is asked for what there is not, or cannot be read.
    pub async fn usage(&self, query: &UsageQuery) -> Result<UsageReport, Problem> {
        meters::report(self.meters(), &self.config().energy, query).await
    }

    /// What stands in the way of Dormouse on this host.
    pub async fn doctor(&self) -> Report {
        let (config, standbys) = (self.config().clone(), self.standbys().await);
        let surrogate = self.shared.presence.capabilities().await;
        let bridges = self.handles().iter().flat_map(|h| admission::bridges(&h.spec)).collect();
        let domains = doctor::Domains::of(self.handles().iter().map(|handle| &*handle.spec));
        let look = move || doctor::examine(&config, &surrogate, bridges, domains);
        let report = tokio::task::spawn_blocking(look).await;
        let mut report = report.unwrap_or_default();
        report.checks.push(standbys);
        report.checks.extend(self.meters().kept().map(|kept| doctor::usage(kept, &self.config().metering)));
        report.checks.extend(self.budget_checks());
        report.checks.extend(self.lost().iter().map(|(name, lost)| doctor::lost_machine(name, &lost.why)));
        report
    }

    fn find(&self, name: &MachineName) -> Result<Handle, Problem> {
        let found = self.machines.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| match self.lost().get(name) {
            Some(lost) => Problem::new(ProblemKind::Failed, format!("{name} cannot be driven: {}", lost.why))
                .fix("`dormouse doctor` says what to do"),
            None => Problem::new(ProblemKind::NotFound, format!("there is no machine {name}"))
                .fix("`dormouse ls` lists them"),
        })
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    pub(crate) fn registry(&self) -> &dyn Registry {
        &*self.shared.registry
    }

    pub(crate) fn handles(&self) -> Vec<Handle> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<MachineName, Handle>> {
        self.machines.write().unwrap_or_else(PoisonError::into_inner)
    }
}
