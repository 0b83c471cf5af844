//! A domain's interfaces on the host. They are libvirt's: made with the process, gone with it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use dormouse_machine::spec::InterfaceSpec;
use dormouse_platform::{Error, Port};
use dormouse_sys::tap;

use super::{Inner, life::Status};
use crate::{hub::Lane, xml::Description};

/// How long what was found is believed: interfaces come and go (`virsh attach-interface`) without an event that
/// we hear.
const FRESH: Duration = Duration::from_secs(10);

/// Who is to be stood in for does not wait longer for a libvirtd that is away, or hangs.
const PROMPT: Duration = Duration::from_secs(1);

/// A name that no tap of libvirt has: that of a domain without a process, whose last one may be another's
/// by now.
const NO_TAP: &str = "vnet-none";

impl Inner {
    /// The interfaces of the domain's process.
    pub(super) async fn attached(&self) -> Result<Vec<Port>, Error> {
        let fresh = |(at, ports): &(Instant, Vec<Port>)| (at.elapsed() < FRESH).then(|| ports.clone());
        if let Some(ports) = self.known().ports.as_ref().and_then(fresh) {
            return Ok(ports);
        }
        let age = self.age();
        let live = self.ask(Lane::Quick, |domain| match Status::of(domain)? {
            Status::Off => Ok(None),
            _ => Ok(Some(domain.get_xml_desc(0)?)),
        });
        let xml = live.await.map_err(self.failed("describe"))?.ok_or(Error::NotRunning)?;
        let description = self.read(&xml)?;
        let pid = self.pid().await;
        let port = |interface| port(&description, interface, pid);
        let ports: Vec<Port> = self.interfaces.iter().map(port).collect::<Result<_, _>>()?;
        self.note(age, |known| {
            known.description = Some(Arc::new(description));
            known.ports = Some((Instant::now(), ports.clone()));
        });
        Ok(ports)
    }

    /// The same of a domain that may be off: then there are none, and its file says the bridges. So it does
    /// where libvirt does not say in time: nobody can stop it by libvirt then either.
    pub(super) async fn attached_or_named(&self) -> Result<Vec<Port>, Error> {
        let last = self.known().ports.as_ref().map(|(_, ports)| ports.clone());
        let named = || self.interfaces.iter().map(named).collect();
        match tokio::time::timeout(PROMPT, self.attached()).await {
            Ok(Err(Error::NotRunning)) => Ok(named()),
            Err(_) | Ok(Err(Error::Unreachable { .. })) => Ok(last.unwrap_or_else(named)),
            Ok(ports) => ports,
        }
    }

    /// Its definition: of the running domain if it runs.
    pub(super) async fn description(&self) -> Result<Arc<Description>, Error> {
        if let Some(description) = self.known().description.clone() {
            return Ok(description);
        }
        let age = self.age();
        let xml = self.ask(Lane::Quick, |domain| Ok(domain.get_xml_desc(0)?)).await;
        let description = Arc::new(self.read(&xml.map_err(self.failed("describe"))?)?);
        self.note(age, |known| known.description = Some(Arc::clone(&description)));
        Ok(description)
    }

    fn read(&self, xml: &str) -> Result<Description, Error> {
        Description::from_xml(xml).map_err(|error| Error::Refused {
            whom: "libvirt",
            action: format!("describe domain {} so that it is understood", self.who.name),
            source: error.into(),
        })
    }
}

fn port(description: &Description, interface: &InterfaceSpec, pid: Option<u32>) -> Result<Port, Error> {
    let mac = interface.mac;
    let failed =
        |bridge: &str, why: String| Error::Interface { mac, bridge: bridge.to_owned(), source: why.into() };
    let ours = description.interfaces.iter().find(|theirs| theirs.mac == mac);
    let ours = ours.ok_or_else(|| {
        failed(
            &interface.bridge,
            "the running domain has no such interface: correct the machine's file".into(),
        )
    })?;
    // Of a running domain the XML itself names the bridge.
    let bridge = ours.bridge(&BTreeMap::new()).map_err(|why| failed(&interface.bridge, why.reason))?;
    let tap = ours.target.clone().ok_or_else(|| failed(&bridge, "libvirt does not name its tap".into()))?;
    let queue = pid.and_then(|pid| queue(pid, &tap));
    Ok(Port { mac, bridge, tap, queue })
}

/// The queue of a tap that QEMU has; `None` if it cannot be had: then it only cannot be seen when the
/// guest has read it all.
fn queue(pid: u32, name: &str) -> Option<Arc<std::os::fd::OwnedFd>> {
    match tap::borrow_queue(pid, name) {
        Ok(queue) => queue.map(Arc::new),
        Err(error) => {
            tracing::debug!(pid, tap = name, %error, "its queue cannot be seen");
            None
        }
    }
}

fn named(interface: &InterfaceSpec) -> Port {
    Port { mac: interface.mac, bridge: interface.bridge.clone(), tap: NO_TAP.into(), queue: None }
}
