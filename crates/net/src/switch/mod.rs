//! Switches that guests' taps are ports of, behind one face: what a stand-in asks of them.
//!
//! A *listener* is the port by which a stand-in hears what the switch sends it. To *divert* an
//! address is to have its unicast frames sent to a listener, whoever else is heard with it; to
//! *give* it back is to have them sent to the guest's tap. A port that is *isolated* gets nothing
//! that is flooded.

mod linux;
mod ovs;

use std::collections::BTreeSet;

use dormouse_types::MacAddr;

use crate::{Error, FdbTurn, Link, Net, Vlans};

/// A switch that exists.
#[derive(Clone, Debug)]
pub struct Switch {
    net: Net,
    name: String,
    index: u32,
    mtu: u32,
    kind: SwitchKind,
}

/// The kinds of switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchKind {
    /// A bridge of the kernel's.
    Linux,
    /// A bridge of Open vSwitch's.
    OpenVSwitch,
}

/// What is flooded to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flooding {
    /// Broadcasts and all multicast, but no unicast; nothing is learned: for a listener.
    Listener,
    /// Nothing, and nothing is learned: for the tap of a captured guest.
    Nothing,
    /// As to any port, and all multicast: for a guest whose memberships the switch has forgotten.
    Woken,
    /// As to any port.
    Ordinary,
}

/// A change of the way to an address that a thread without a runtime can make at once. Empty for
/// a switch that cannot be changed so: there only [`Switch::give`] changes it.
#[derive(Debug, Default)]
pub struct Turn(Vec<FdbTurn>);

impl Turn {
    /// Makes the change. When this returns it is made.
    ///
    /// # Errors
    /// When the link is in no bridge.
    pub fn make(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(FdbTurn::make)
    }
}

impl Net {
    /// The switch of this name.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotABridge`].
    pub async fn switch(&self, name: &str) -> Result<Switch, Error> {
        let link = self.link(name).await?.ok_or_else(|| Error::NoBridge(name.to_owned()))?;
        let kind = match link.is_bridge {
            true => SwitchKind::Linux,
            false if ovs::has_bridge(name).await? => SwitchKind::OpenVSwitch,
            false => return Err(Error::NotABridge(name.to_owned())),
        };
        Ok(Switch { net: self.clone(), name: link.name, index: link.index, mtu: link.mtu, kind })
    }

    /// The switch that a link is a port of, if it is of any.
    ///
    /// # Errors
    /// When the kernel or the switch cannot be asked.
    pub async fn switch_of(&self, port: &Link) -> Result<Option<Switch>, Error> {
        if let Some(master) = port.master
            && let Some(link) = self.link_by_index(master).await?
            && link.is_bridge
        {
            return self.switch(&link.name).await.map(Some);
        }
        match ovs::bridge_of(&port.name).await? {
            Some(bridge) => self.switch(&bridge).await.map(Some),
            None => Ok(None),
        }
    }

    async fn name(&self, index: u32) -> Result<String, Error> {
        let link = self.link_by_index(index).await?;
        link.map(|link| link.name).ok_or_else(|| Error::NoLink(format!("#{index}")))
    }
}

impl Switch {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of the link that bears its name.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Its maximum transmission unit, bytes.
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> SwitchKind {
        self.kind
    }

    /// Is this link one of its ports?
    ///
    /// # Errors
    /// When the switch cannot be asked.
    pub async fn has(&self, port: &Link) -> Result<bool, Error> {
        match self.kind {
            SwitchKind::Linux => Ok(port.master == Some(self.index)),
            SwitchKind::OpenVSwitch => Ok(ovs::bridge_of(&port.name).await?.as_ref() == Some(&self.name)),
        }
    }

    /// Makes a link one of its ports; no change if it is.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn join(&self, port: u32) -> Result<(), Error> {
        match self.kind {
            SwitchKind::Linux => self.net.set_master(port, self.index).await,
            SwitchKind::OpenVSwitch => ovs::join(&self.name, &self.net.name(port).await?).await,
        }
    }

    /// Takes a port out, for good: its link is to be deleted, or is deleted.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn leave(&self, port: &str) -> Result<(), Error> {
        match self.kind {
            // It forgets ports with their links.
            SwitchKind::Linux => Ok(()),
            SwitchKind::OpenVSwitch => ovs::leave(&self.name, port).await,
        }
    }

    /// Sets what is flooded to a port.
    ///
    /// # Errors
    /// When the link is no port of the switch; [`Error::FlagIgnored`].
    pub async fn flood(&self, port: u32, what: Flooding) -> Result<(), Error> {
        match self.kind {
            SwitchKind::Linux => self.net.set_port_flags(port, linux::flags(what)).await,
            SwitchKind::OpenVSwitch => {
                let port = self.net.name(port).await?;
                if what == Flooding::Listener {
                    ovs::listen(&port).await?;
                }
                ovs::flood(&self.name, &port, what != Flooding::Nothing).await
            }
        }
    }

    /// The VLANs that a guest's port is in, or a new port would be; `None` on a switch that does not
    /// tell them apart.
    ///
    /// # Errors
    /// When the switch cannot be asked.
    pub async fn vlans(&self, port: Option<u32>) -> Result<Option<Vlans>, Error> {
        match self.kind {
            SwitchKind::Linux => self.net.filtered_vlans(self.index, port).await,
            SwitchKind::OpenVSwitch => match port {
                Some(port) => ovs::vlans(&self.net.name(port).await?).await,
                None => Ok(None),
            },
        }
    }

    /// Has unicast frames for an address sent to a listener, in all of these VLANs, tagged.
    ///
    /// # Errors
    /// When the listener is no port of the switch.
    pub async fn divert(&self, mac: MacAddr, vlans: Option<&Vlans>, listener: u32) -> Result<(), Error> {
        match self.kind {
            SwitchKind::Linux => self.net.divert(mac, vlans, listener).await,
            SwitchKind::OpenVSwitch => {
                ovs::point(&self.name, mac, vlans, &self.net.name(listener).await?).await
            }
        }
    }

    /// Has unicast frames for an address sent to the guest's port `tap`, in all of these VLANs.
    ///
    /// # Errors
    /// When the tap is no port of the switch, or does not forward.
    pub async fn give(&self, mac: MacAddr, vlans: Option<&Vlans>, tap: u32) -> Result<(), Error> {
        match self.kind {
            SwitchKind::Linux => self.net.give(mac, vlans, tap).await,
            SwitchKind::OpenVSwitch => ovs::point(&self.name, mac, vlans, &self.net.name(tap).await?).await,
        }
    }

    /// What [`Switch::give`] does, prepared.
    ///
    /// # Errors
    /// When no netlink socket can be had.
    pub fn turn(&self, mac: MacAddr, vlans: Option<&Vlans>, tap: u32) -> Result<Turn, Error> {
        match self.kind {
            SwitchKind::Linux => linux::turn(mac, vlans, tap).map(Turn),
            SwitchKind::OpenVSwitch => Ok(Turn::default()),
        }
    }

    /// The addresses that are diverted to a listener.
    ///
    /// # Errors
    /// When the switch cannot be asked.
    pub async fn diverted(&self, listener: u32) -> Result<BTreeSet<MacAddr>, Error> {
        match self.kind {
            SwitchKind::Linux => self.net.diverted(listener).await,
            SwitchKind::OpenVSwitch => ovs::pointed(&self.name, &self.net.name(listener).await?).await,
        }
    }

    /// Diverts an address no longer, in any VLAN: it is the switch's to find out again.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn forget(&self, mac: MacAddr, listener: u32) -> Result<(), Error> {
        match self.kind {
            SwitchKind::Linux => self.net.forget(mac, listener).await,
            SwitchKind::OpenVSwitch => ovs::forget(&self.name, mac).await,
        }
    }
}
