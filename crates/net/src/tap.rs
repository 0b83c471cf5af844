//! Taps in a bridge, as a guest's network interface on the host.

use std::os::fd::OwnedFd;

use dormouse_sys::tap;

use crate::{Error, Net, PATIENCE, patience::Patience};

impl Net {
    /// Makes sure that the tap `name` exists in `bridge`, up, with the bridge's MTU and no
    /// address of the host's on it, and opens its queue, for the guest or to look at. The tap
    /// persists when the queue is closed.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotABridge`]; [`Error::Tap`] when it is in use by another
    /// process, is no tap, or may not be opened.
    pub async fn ensure_tap(&self, name: &str, bridge: &str) -> Result<OwnedFd, Error> {
        let switch = self.switch(bridge).await?;
        let queue = open(name).await?;
        tap::set_persist(&queue, true)?;
        // Before it is up: the host would speak router and listener discovery on it at once.
        self.disable_ipv6(name)?;
        let link = self.link(name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?;
        if link.mtu != switch.mtu() {
            self.set_mtu(link.index, switch.mtu()).await?;
        }
        if !switch.has(&link).await? {
            switch.join(link.index).await?;
        }
        self.set_up(link.index).await?;
        Ok(queue)
    }

    /// Deletes the tap `name` of `bridge`. Says false if it was not there.
    ///
    /// # Errors
    /// When it is refused. No error if there is no such bridge any more.
    pub async fn remove_tap(&self, name: &str, bridge: &str) -> Result<bool, Error> {
        match self.switch(bridge).await {
            Ok(switch) => switch.leave(name).await?,
            Err(Error::NoBridge(_) | Error::NotABridge(_)) => {}
            Err(error) => return Err(error),
        }
        self.delete_link(name).await
    }
}

/// Opens a tap. One that was just closed can still be in use for a moment: by a child that
/// another thread has forked and that has not yet executed its program.
async fn open(name: &str) -> Result<OwnedFd, tap::Error> {
    let mut patience = Patience::new(PATIENCE);
    loop {
        match tap::open(name) {
            Err(tap::Error::InUse(_)) if patience.wait().await => {}
            result => return result,
        }
    }
}
