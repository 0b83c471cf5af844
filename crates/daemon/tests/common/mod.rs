//! A host without processes or networks: machines and a surrogate that only remember what was asked.
#![allow(dead_code, reason = "each test file uses its own part")]

mod world;

use std::{future::Future, net::IpAddr, path::Path, sync::Arc, time::Duration};

use dormouse_api_types::{CreateMachine, Event, EventKind, MachineState, Why};
use dormouse_daemon::{
    clock::Clock,
    config::Config,
    driver::{Given, Order, Shared},
    events::Events,
    fault::Fault,
    host::{Host, Notices},
    meters::Meters,
    room::Rooms,
};
use dormouse_registry::{Error, Redb, Registry};
use dormouse_types::{MacAddr, MachineName};
use tokio::sync::mpsc;

pub use world::World;
use world::{Journalled, Maker};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host under test, and the way to its world.
pub struct Bench {
    pub host: Arc<Host>,
    pub world: Arc<World>,
    pub presence: mpsc::UnboundedSender<dormouse_surrogate::Notice>,
    pub platform: mpsc::Sender<dormouse_platform::Notice>,
}

pub const WEB_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

pub fn web() -> MachineName {
    "web".parse().unwrap()
}

/// A machine file. The kernel has to be there: any file will do.
pub fn file(name: &str, last_octet: u8) -> String {
    let addresses = format!("bridge = \"br0\"\naddresses = [\"10.9.0.{last_octet}\"]\n");
    unaddressed_file(name, last_octet).replace("bridge = \"br0\"\n", &addresses)
}

/// One that leaves it to the guest to tell its addresses.
pub fn unaddressed_file(name: &str, last_octet: u8) -> String {
    format!(
        "name = {name:?}\n[qemu]\nmemory = \"64MiB\"\nkernel = \"/proc/version\"\n\
         [[interface]]\nmac = \"52:54:00:00:00:{last_octet:02x}\"\nbridge = \"br0\"\n\
         [sleep]\nidle_after = \"never\"\n"
    )
}

pub fn create(toml: &str) -> CreateMachine {
    CreateMachine { toml: toml.into(), base: "/".into() }
}

pub fn config(dir: &Path, more: &str) -> Config {
    let text =
        format!("state_dir = {dir:?}\nsocket = {:?}\nsample_interval = \"100ms\"\n{more}", dir.join("sock"));
    Config::parse(&text, Path::new("test.toml")).unwrap()
}

/// Opens the registry; an earlier one's thread may still be closing it.
pub async fn open(dir: &Path) -> Redb {
    for _ in 0..2000 {
        match Redb::open(dir) {
            Err(Error::InUse { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the registry is still in use");
}

impl Bench {
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, Arc::new(World::default()), "").await
    }

    pub async fn start_with(dir: &Path, world: Arc<World>, more: &str) -> Self {
        let redb = open(dir).await;
        let registry = Arc::new(Journalled::new(redb.clone(), Arc::clone(&world)));
        let clock: Arc<dyn Clock> = Arc::clone(&world.clock) as _;
        Self::start_at(world, redb, registry, config(dir, more), clock).await
    }

    /// A bench with a registry and a clock of its own.
    pub async fn start_at(
        world: Arc<World>,
        redb: Redb,
        registry: Arc<dyn Registry>,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let meters = Meters::open(Arc::new(redb), Arc::clone(&clock)).await.unwrap();
        world.set_clock(Arc::clone(&clock));
        let config = Arc::new(config);
        let shared = Shared {
            registry,
            meters,
            presence: Arc::clone(&world) as _,
            events: Events::new(1000, Arc::clone(&clock)),
            clock,
            config: Arc::clone(&config),
            inhibitors: Arc::clone(&world.inhibitors.lock().unwrap()),
            policies: Arc::new(dormouse_daemon::service::policies(&config)),
            rooms: Rooms::default(),
            fault: Fault::default(),
        };
        let (presence, told) = mpsc::unbounded_channel();
        let (platform, told_by_platform) = mpsc::channel(16);
        let notices = Notices { presence: told, platform: told_by_platform };
        let host = Host::start(shared, Arc::new(Maker(Arc::clone(&world))), notices).await.unwrap();
        Self { host, world, presence, platform }
    }

    /// A bench with the machine `web`, which runs; what led there is not in the log of calls.
    pub async fn with_web(dir: &Path) -> Self {
        Self::with_file(dir, &file("web", 2), "").await
    }

    pub async fn with_file(dir: &Path, file: &str, config: &str) -> Self {
        let bench = Self::start_with(dir, Arc::new(World::default()), config).await;
        bench.host.create(create(file)).await.unwrap();
        bench.order(Order::Start { cold: false }).await.unwrap();
        bench.world.take_calls();
        bench
    }

    pub async fn order(&self, order: Order) -> Result<Given, dormouse_api_types::Problem> {
        within("an order", self.host.order(&web(), order, true)).await
    }

    /// Gives an order that is answered later.
    pub fn order_later(
        &self,
        order: Order,
    ) -> tokio::task::JoinHandle<Result<Given, dormouse_api_types::Problem>> {
        let host = Arc::clone(&self.host);
        tokio::spawn(async move { host.order(&web(), order, true).await })
    }

    pub fn packet(&self) {
        let frame = "tcp 10.9.0.1:40000 > 10.9.0.2:80 [S]".into();
        self.presence.send(dormouse_surrogate::Notice::Wake { name: web(), frame }).unwrap();
    }

    pub async fn state(&self) -> MachineState {
        self.host.show(&web()).await.unwrap().summary.state
    }

    pub async fn wait_state(&self, state: MachineState) {
        let reached = async {
            while self.state().await != state {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(&format!("state {state}"), reached).await;
    }

    /// Waits for a warning that has these words.
    pub async fn wait_warning(&self, words: &str) {
        let is_it = |event: &Event| {
            event.kind == EventKind::Warning
                && event.cause.as_ref().is_some_and(|cause| cause.contains(words))
        };
        let told = async {
            while !self.events().iter().any(is_it) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(words, told).await;
    }

    pub fn events(&self) -> Vec<Event> {
        self.host.events().subscribe(0).kept
    }

    pub fn learn(&self, addresses: &[IpAddr]) {
        let (name, mac, addresses) = (web(), WEB_MAC, addresses.to_vec());
        self.presence.send(dormouse_surrogate::Notice::Learned { name, mac, addresses }).unwrap();
    }

    /// Waits until its reasons are such.
    pub async fn wait_why(&self, is_it: impl Fn(&Why) -> bool) -> Why {
        let waiting = async {
            loop {
                let why = self.host.why(&web()).await.unwrap();
                if is_it(&why) {
                    return why;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within("reasons", waiting).await
    }

    /// Waits until `reached` is true.
    pub async fn wait(&self, what: &str, mut reached: impl AsyncFnMut(&Self) -> bool) {
        let waiting = async {
            while !reached(self).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(what, waiting).await;
    }

    pub fn warnings(&self) -> Vec<String> {
        let events = self.events().into_iter().filter(|event| event.kind == EventKind::Warning);
        events.filter_map(|event| event.cause).collect()
    }
}

pub const SLEEP: Order = Order::Sleep { depth: None };

pub fn hold(reason: &str) -> Order {
    Order::Hold { reason: reason.into(), by: "test".into(), span: None, tied: false }
}

/// Fails the test rather than let it hang.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else { panic!("{what}: waited in vain") };
    value
}
