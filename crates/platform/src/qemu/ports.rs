//! A machine's interfaces on the host: a tap in a bridge for each.

use std::{os::fd::OwnedFd, sync::Arc};

use dormouse_machine::spec::InterfaceSpec;
use dormouse_sys::tap;
use dormouse_types::MachineName;

use super::Qemu;
use crate::{Error, Port};

/// A tap that exists, with its queue.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) port: Port,
    /// The interface's number, which a later one of its name has not.
    index: u32,
    queue: Arc<OwnedFd>,
}

/// The tap of a machine's nth interface: the same after every restart, at most 15 characters.
///
/// The name is a hash: machine names are up to 63 characters. A tap that collides is in use, or
/// in another bridge, and is refused or moved like any other.
pub(super) fn tap_name(name: &MachineName, n: usize) -> String {
    // FNV-1a, 64 bits, of which 40 are shown.
    let hash = name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("dm{:010x}-{n}", (hash ^ (hash >> 40)) & 0xff_ffff_ffff)
}

impl Qemu {
    /// Makes the taps that are missing, and finds the queues of those that a process has.
    pub(super) async fn attach_all(&self) -> Result<Vec<Port>, Error> {
        // A wake asks for them from two sides at once.
        let _attaching = self.attaching.lock().await;
        self.mend().await?;
        let done = self.attached().len();
        for n in done..self.config.interfaces.len() {
            let attached = self.attach_one(n, &self.config.interfaces[n]).await?;
            self.attached().push(attached);
        }
        Ok(self.attached().iter().map(|a| a.port.clone()).collect())
    }

    /// The interfaces of a machine that is to be stood in for. Those of a sleeper without a process
    /// are only named: thousands of them, each opened, set up and taken down again, would be most
    /// of a restart, and nothing waits in a tap that no process had open.
    pub(super) async fn ports_as_known(&self) -> Result<Vec<Port>, Error> {
        match self.running().await {
            Ok(_) => return self.attach_all().await,
            Err(Error::NotRunning) => {}
            Err(error) => return Err(error),
        }
        let attached = self.attached();
        let known = |(n, interface): (usize, &InterfaceSpec)| match attached.get(n) {
            Some(attached) => attached.port.clone(),
            None => Port {
                mac: interface.mac,
                bridge: interface.bridge.clone(),
                tap: tap_name(&self.config.name, n),
                queue: None,
            },
        };
        Ok(self.config.interfaces.iter().enumerate().map(known).collect())
    }

    /// While no process has the taps, somebody may have deleted one, or its bridge.
    async fn mend(&self) -> Result<(), Error> {
        let attached = self.attached().clone();
        if attached.is_empty() || !matches!(self.running().await, Err(Error::NotRunning)) {
            return Ok(());
        }
        for (n, (known, interface)) in attached.iter().zip(&self.config.interfaces).enumerate() {
            let whole = self.put_back(known).await;
            if !whole.map_err(|source| failed(interface, source.into()))? {
                // It has the tap that is gone.
                self.cool_down().await?;
                tracing::warn!(name = %self.config.name, tap = known.port.tap, "is gone: made anew");
                let anew = self.attach_one(n, interface).await?;
                if let Some(entry) = self.attached().get_mut(n) {
                    *entry = anew;
                }
            }
        }
        Ok(())
    }

    /// Puts a tap back into its bridge if it is not there; false: the tap itself is gone.
    async fn put_back(&self, known: &Attached) -> Result<bool, dormouse_net::Error> {
        let Some(link) = self.net.link(&known.port.tap).await?.filter(|link| link.index == known.index)
        else {
            return Ok(false);
        };
        let switch = self.net.switch(&known.port.bridge).await?;
        if !switch.has(&link).await? {
            if link.mtu != switch.mtu() {
                self.net.set_mtu(link.index, switch.mtu()).await?;
            }
            switch.join(link.index).await?;
        }
        Ok(true)
    }

    async fn attach_one(&self, n: usize, interface: &InterfaceSpec) -> Result<Attached, Error> {
        let name = tap_name(&self.config.name, n);
        let InterfaceSpec { mac, bridge, .. } = interface.clone();
        let made = async { Ok((self.queue(&name, &bridge).await?, self.net.index(&name).await?)) };
        let (queue, index) = made.await.map_err(|source| failed(interface, source))?;
        let queue = Arc::new(queue);
        let port = Port { mac, bridge, tap: name, queue: Some(Arc::clone(&queue)) };
        Ok(Attached { port, index, queue })
    }

    async fn queue(&self, name: &str, bridge: &str) -> Result<OwnedFd, Source> {
        let running = match self.running().await {
            Ok(running) => running,
            Err(Error::NotRunning) => {
                if let Some(queue) = self.standby_queue(name).await {
                    return Ok(queue);
                }
                // One that has not the tap is of no use.
                self.cool_down().await?;
                return Ok(self.net.ensure_tap(name, bridge).await?);
            }
            Err(error) => return Err(error.into()),
        };
        let pid = running.process.pid;
        let queue = tap::borrow_queue(pid, name)?;
        queue.ok_or_else(|| {
            format!("the running process {pid} was started without tap {name}: stop the machine").into()
        })
    }

    /// Copies of the queues of what is attached, for a process.
    pub(super) fn queues(&self) -> Result<Vec<OwnedFd>, Error> {
        let attached = self.attached().clone();
        let copy = |a: &Attached| a.queue.try_clone().map_err(Error::io("copy a descriptor of", &a.port.tap));
        attached.iter().map(copy).collect()
    }

    /// Removes the taps, going on past an error; the first is reported.
    pub(super) async fn detach_all(&self) -> Result<(), Error> {
        let _attaching = self.attaching.lock().await;
        self.attached().clear();
        let mut result = Ok(());
        for (n, interface) in self.config.interfaces.iter().enumerate() {
            if let Err(error) = self.net.remove_tap(&tap_name(&self.config.name, n), &interface.bridge).await
            {
                result = result.and(Err(failed(interface, error.into())));
            }
        }
        result
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

fn failed(interface: &InterfaceSpec, source: Source) -> Error {
    let InterfaceSpec { mac, bridge, .. } = interface.clone();
    Error::Interface { mac, bridge, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_taps_fit_and_differ() {
        let names = ["web", "web2", "a", &"x".repeat(63)].map(|n| tap_name(&n.parse().unwrap(), 15));
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() <= 15, "{name}");
            assert!(!names[..i].contains(name));
        }
        assert_eq!(tap_name(&"web".parse().unwrap(), 0), tap_name(&"web".parse().unwrap(), 0));
    }
}
