//! Taps in a bridge, as a guest's network interface on the host.

use std::os::fd::OwnedFd;

use crate::{Error, Net};

impl Net {
    /// Makes sure that the tap `name` exists in `bridge`, up, with the bridge's MTU and no
    /// address of the host's on it, and opens its queue, for the guest or to look at. The tap
    /// persists when the queue is closed.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotABridge`]; [`Error::Tap`] when it is in use by another
    /// process, is no tap, or may not be opened.
    pub async fn ensure_tap(&self, name: &str, bridge: &str) -> Result<OwnedFd, Error> {
        let bridge = self.bridge(bridge).await?;
        let queue = dormouse_sys::tap::open(name)?;
        dormouse_sys::tap::set_persist(&queue, true)?;
        // Before it is up: the host would speak router and listener discovery on it at once.
        self.disable_ipv6(name)?;
        let tap = self.link(name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?;
        if tap.mtu != bridge.mtu {
            self.set_mtu(tap.index, bridge.mtu).await?;
        }
        if tap.master != Some(bridge.index) {
            self.set_master(tap.index, bridge.index).await?;
        }
        self.set_up(tap.index).await?;
        Ok(queue)
    }
}
