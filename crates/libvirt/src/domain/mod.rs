//! One domain as the core sees it.

mod ability;
mod balloon;
mod clock;
mod definition;
mod flood;
mod inside;
mod instance;
mod life;
mod managed_save;
mod measure;
mod page_out;
mod ports;
mod ram_file;
mod told;
mod viewers;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    time::Instant,
};

use dormouse_machine::spec::{InterfaceSpec, LibvirtSpec, MachineSpec};
use dormouse_net::Net;
use dormouse_platform::{Error, Notice};
use dormouse_types::MachineName;
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain as Handle, error::ErrorNumber};

use crate::{
    clock::now,
    expect::{Deed, Expectations},
    hub::{CallError, Hub, Lane, Member},
    xml::Description,
};

/// A domain of libvirt.
#[derive(Debug)]
pub struct Domain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: MachineName,
    who: Who,
    /// Of the machine's file.
    interfaces: Vec<InterfaceSpec>,
    hub: Arc<Hub>,
    net: Net,
    notices: mpsc::Sender<Notice>,
    expectations: Mutex<Expectations>,
    /// Counts what happened to it.
    changed: watch::Sender<u64>,
    hurry: watch::Sender<u64>,
    paging: page_out::Paging,
    ram_file: ram_file::RamFile,
    managed_save: managed_save::ManagedSave,
    known: Mutex<Known>,
    /// It stands still because we stopped it.
    is_paused_by_us: AtomicBool,
    /// Its guest's agent is asked one thing at a time.
    agent: Arc<Semaphore>,
    /// That nobody can set its guest's clock was told.
    clock_told: AtomicBool,
}

/// Which domain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Who {
    name: String,
    /// A renamed domain keeps it.
    uuid: Option<Uuid>,
}

/// What was found out, until something happens that may change it.
#[derive(Debug, Default)]
struct Known {
    ports: Option<(Instant, Vec<dormouse_platform::Port>)>,
    /// Its QEMU process; `Some(None)`: there is none.
    pid: Option<Option<u32>>,
    /// Of its definition; of the running domain if it runs.
    description: Option<Arc<Description>>,
    capabilities: Option<dormouse_platform::Capabilities>,
    /// Since when its processors stand still; `None`: they run, or it is not known since when.
    still_since: Option<Instant>,
    /// It was restored, so that its guest's clock stands where it was saved.
    is_clock_behind: bool,
    /// When its guest was last let run on: its agent is away for a moment then.
    ran_on: Option<Instant>,
    /// What its process has shown of the guest's suspending itself.
    s3: S3,
    /// Who came to its screen since libvirt can be asked, and has not left.
    viewers: viewers::Viewers,
}

/// Whether a guest that suspended itself (S3) can do so again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct S3 {
    /// It did, and was woken.
    is_woken: bool,
    /// It did not, when it was asked again.
    is_spent: bool,
}

impl Domain {
    /// A domain of a libvirt, which is asked nothing yet.
    pub(crate) fn join(
        spec: &MachineSpec,
        libvirt: &LibvirtSpec,
        hub: Arc<Hub>,
        net: Net,
        notices: mpsc::Sender<Notice>,
        folder: &Path,
    ) -> Self {
        let inner = Arc::new(Inner {
            machine: spec.name.clone(),
            who: Who { name: libvirt.domain.clone(), uuid: libvirt.uuid },
            interfaces: spec.interfaces.clone(),
            hub,
            net,
            notices,
            expectations: Mutex::default(),
            changed: watch::Sender::new(0),
            hurry: watch::Sender::new(0),
            paging: page_out::Paging { is_wanted: libvirt.page_out, ..Default::default() },
            ram_file: ram_file::RamFile::new(libvirt.save, folder, spec.name.as_str()),
            managed_save: managed_save::ManagedSave::default(),
            known: Mutex::default(),
            is_paused_by_us: AtomicBool::new(false),
            agent: Arc::new(Semaphore::new(1)),
            clock_told: AtomicBool::new(false),
        });
        let member: Arc<dyn Member> = Arc::clone(&inner) as Arc<dyn Member>;
        let member: Weak<dyn Member> = Arc::downgrade(&member);
        inner.hub.join(member);
        inner.keep_definition();
        Self(inner)
    }
}

impl Inner {
    /// Asks something of the domain.
    async fn ask<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Handle) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let who = self.who.clone();
        self.hub.call(lane, move |connect| work(&who.find(connect)?)).await
    }

    /// Does something to it, whose events are ours.
    async fn act<T: Send + 'static>(
        &self,
        deed: Deed,
        lane: Lane,
        work: impl FnOnce(&Handle) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let _expected = self.expect(deed);
        self.ask(lane, work).await
    }

    /// From now on until a while after the answer is dropped, what comes of `deed` is ours.
    fn expect(&self, deed: Deed) -> Expected<'_> {
        let id = self.expectations().asked(deed);
        Expected { domain: self, id }
    }

    fn expectations(&self) -> MutexGuard<'_, Expectations> {
        self.expectations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much has happened to it.
    fn age(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Notes what was found out, unless something happened since it was `age` old.
    fn note(&self, age: u64, note: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        if self.age() == age {
            note(&mut known);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an error: `start domain web`.
    fn action(&self, verb: &str) -> String {
        format!("{verb} domain {}", self.who.name)
    }

    fn failed(&self, verb: &'static str) -> impl FnOnce(CallError) -> Error {
        let action = self.action(verb);
        move |error| error.to(action)
    }
}

/// A deed whose events are ours as long as this lives, and a little longer.
struct Expected<'a> {
    domain: &'a Inner,
    id: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.domain.expectations().answered(self.id, now());
    }
}

impl Who {
    fn find(&self, connect: &Connect) -> Result<Handle, virt::error::Error> {
        match self.uuid {
            Some(uuid) => Handle::lookup_by_uuid_string(connect, &uuid.to_string()),
            None => Handle::lookup_by_name(connect, &self.name),
        }
    }

    fn is(&self, name: &str, uuid: &str) -> bool {
        match self.uuid {
            Some(ours) => uuid.parse() == Ok(ours),
            None => self.name == name,
        }
    }
}

/// There is no such domain.
fn is_missing(error: &CallError) -> bool {
    error.code() == Some(ErrorNumber::NoDomain)
}
