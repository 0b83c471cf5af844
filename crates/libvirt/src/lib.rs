//! Domains of libvirt as machines of Dormouse.
//!
//! libvirt is the one that knows: what it says of a domain is what is so, and what others do to a domain
//! is told and followed. One [`Libvirt`] has a connection to each libvirtd that machines name; a [`Domain`]
//! is one machine. Of a domain's definition nothing is changed, but for a RAM file that its machine's file asks for
//! (`save = "ram-file"`).
#![forbid(unsafe_code)]

mod candidate;
mod clock;
mod domain;
mod expect;
mod happening;
mod hub;
mod ram_file;
mod survey;
mod uri;
pub mod xml;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use dormouse_machine::spec::{LibvirtSave, LibvirtSpec, MachineSpec};
use dormouse_net::Net;
use dormouse_platform::{Error, Finding, NotFound, Notice, Obstacle};
use dormouse_types::Depth;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use virt::error::ErrorNumber;

use self::{
    hub::{CallError, Hub, Lane},
    survey::Networks,
};

pub use domain::Domain;

/// The connection of who names none.
pub const SYSTEM: &str = "qemu:///system";

/// Domains that are looked at beside each other.
const AT_ONCE: usize = 3;
/// How long guests' agents are asked for addresses: one of them, and all that are looked at.
const AGENT: Duration = Duration::from_secs(5);
const AGENTS: Duration = Duration::from_secs(15);

/// What can be done about a libvirt that is elsewhere.
const ELSEWHERE_FIX: &str = "run dormoused on that host, or write a machine file without [[interface]], with \
                             sleep.idle_after = \"never\": such a machine sleeps and wakes by command only";

fn elsewhere(uri: &str) -> String {
    format!(
        "the libvirt of {uri} is on another host: from here nobody can stand in for what is on its bridges, nor \
             reach its memory"
    )
}

/// The libvirts that domains are on, each connected to once.
#[derive(Debug)]
pub struct Libvirt {
    net: Net,
    notices: mpsc::Sender<Notice>,
    uri: String,
    folder: PathBuf,
    hubs: Mutex<HashMap<String, Weak<Hub>>>,
}

impl Libvirt {
    /// None yet. `uri` is the connection of machines that name none; what happens unasked goes to
    /// `notices`. `folder` is for the memory of those that are saved beside it (`save = "ram-file"`).
    #[must_use]
    pub fn new(
        uri: impl Into<String>,
        folder: impl Into<PathBuf>,
        net: Net,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        Self { net, notices, uri: uri.into(), folder: folder.into(), hubs: Mutex::default() }
    }

    /// The domain that a machine's file names. Connects to its libvirt, which need not be there yet. Within a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// When the file asks for what libvirt cannot do.
    pub fn domain(&self, spec: &MachineSpec, libvirt: &LibvirtSpec) -> Result<Domain, Error> {
        let uri = libvirt.uri.as_deref().unwrap_or(&self.uri);
        let asks_for = [
            (!spec.interfaces.is_empty(), "[[interface]]"),
            (libvirt.save == LibvirtSave::RamFile, "save = \"ram-file\""),
            (libvirt.page_out, "page_out = true"),
        ];
        let asks_for = asks_for.into_iter().find_map(|(asks, what)| asks.then_some(what));
        if let Some(what) = asks_for.filter(|_| uri::is_elsewhere(uri)) {
            return Err(Error::Unsupported(format!("{what}: {}; {ELSEWHERE_FIX}", elsewhere(uri))));
        }
        let hub = self.hub(uri);
        Ok(Domain::join(spec, libvirt, hub, self.net.clone(), self.notices.clone(), &self.folder))
    }

    /// The domains of a libvirt that have these names or UUIDs, or all where none is named; `uri` as in
    /// machine files. Changes nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be asked. What is wrong with one domain is told of that one.
    pub async fn candidates(&self, uri: Option<&str>, names: Vec<String>) -> Result<Vec<Finding>, Error> {
        let uri = uri.unwrap_or(&self.uri);
        let hub = self.hub(uri);
        let listed = hub.call(Lane::Guest, move |connect| Ok(survey::list(connect, names)?)).await;
        let (names, networks) = listed.map_err(|error| error.to("list its domains"))?;
        let agents = Instant::now() + AGENTS;
        let looks = names.into_iter().map(|name| look(&hub, name, networks.clone(), agents));
        // Two of them may be stuck, and the others are looked at.
        let looks = stream::iter(looks).buffered(AT_ONCE);
        let mut found: Vec<Finding> = looks.try_collect().await?;
        if uri::is_elsewhere(uri) {
            for candidate in found.iter_mut().filter_map(|finding| finding.found.as_mut().ok()) {
                let bar = Obstacle::to(&Depth::ALL, format!("uri {uri}"), elsewhere(uri));
                candidate.obstacles.push(bar.fix(ELSEWHERE_FIX));
            }
        }
        Ok(found)
    }

    /// The domain of a machine as it is defined now, or as it runs; without addresses.
    ///
    /// # Errors
    ///
    /// When its libvirt cannot be asked.
    pub async fn definition(&self, libvirt: &LibvirtSpec) -> Result<Finding, Error> {
        let uri = libvirt.uri.as_deref().unwrap_or(&self.uri);
        let hub = self.hub(uri);
        let name = libvirt.uuid.map_or_else(|| libvirt.domain.clone(), |uuid| uuid.to_string());
        let found = hub.call(Lane::Quick, move |connect| Ok(survey::definition(connect, &name))).await;
        let mut found = found.map_err(|error| error.to(format!("describe domain {}", libvirt.domain)))?;
        if let (true, Ok(candidate)) = (uri::is_elsewhere(uri), &mut found.found) {
            // Of taps on another host nothing is to be done here.
            candidate.interfaces.clear();
        }
        Ok(found)
    }

    fn hub(&self, uri: &str) -> Arc<Hub> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.retain(|_, hub| hub.strong_count() > 0);
        if let Some(hub) = hubs.get(uri).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Hub::start(uri);
        hubs.insert(uri.to_owned(), Arc::downgrade(&hub));
        hub
    }
}

/// One domain. What is wrong with it, and that there is no answer, is told of it alone; no libvirt is for all.
async fn look(hub: &Hub, name: String, networks: Networks, agents: Instant) -> Result<Finding, Error> {
    let asked = name.clone();
    let seen = hub.call(Lane::Guest, move |connect| Ok(survey::examine(connect, &asked, &networks)?)).await;
    let seen = match seen {
        Ok(seen) => seen,
        Err(CallError::Away(error)) => return Err(error),
        Err(error) if error.code() == Some(ErrorNumber::NoDomain) => {
            return Ok(Finding { name, found: Err(NotFound::Missing) });
        }
        Err(error) => return Ok(Finding { name, found: Err(NotFound::Unreadable(error.words())) }),
    };
    let mut told = Vec::new();
    if seen.has_agent() {
        let asked = name.clone();
        let ask = hub.call(Lane::Agent, move |connect| Ok(survey::ask_agent(connect, &asked)?));
        let answer = timeout_at(agents.min(Instant::now() + AGENT), ask).await;
        told = answer.ok().and_then(Result::ok).unwrap_or_default();
    }
    Ok(Finding { name, found: Ok(seen.candidate(&told)) })
}
