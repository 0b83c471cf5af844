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
        let done = self.attached().len();
        for n in done..self.config.interfaces.len() {
            let attached = self.attach_one(n, &self.config.interfaces[n]).await?;
            self.attached().push(attached);
        }
        Ok(self.attached().iter().map(|a| a.port.clone()).collect())
    }

    async fn attach_one(&self, n: usize, interface: &InterfaceSpec) -> Result<Attached, Error> {
        let name = tap_name(&self.config.name, n);
        let InterfaceSpec { mac, bridge, .. } = interface.clone();
        let queue = self.queue(&name, &bridge).await;
        let queue = queue.map_err(|source| Error::Interface { mac, bridge: bridge.clone(), source })?;
        let queue = Arc::new(queue);
        let port = Port { mac, bridge, tap: name, queue: Some(Arc::clone(&queue)) };
        Ok(Attached { port, queue })
    }

    async fn queue(
        &self,
        name: &str,
        bridge: &str,
    ) -> Result<OwnedFd, Box<dyn std::error::Error + Send + Sync>> {
        let running = match self.running().await {
            Ok(running) => running,
            Err(Error::NotRunning) => return Ok(self.net.ensure_tap(name, bridge).await?),
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
        self.attached().clear();
        let mut result = Ok(());
        for (n, InterfaceSpec { mac, bridge, .. }) in self.config.interfaces.iter().enumerate() {
            if let Err(error) = self.net.delete_link(&tap_name(&self.config.name, n)).await {
                let source = Box::new(error);
                result = result.and(Err(Error::Interface { mac: *mac, bridge: bridge.clone(), source }));
            }
        }
        result
    }
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
