//! A bridge of the kernel's: forwarding entries and port flags.

use std::collections::BTreeSet;

use dormouse_types::MacAddr;

use super::Flooding;
use crate::{Error, FdbState, FdbTarget, FdbTurn, MulticastRouter, Net, PortFlags, Vlans};

pub(super) fn flags(what: Flooding) -> PortFlags {
    match what {
        Flooding::Listener => PortFlags::SURROGATE,
        Flooding::Nothing => PortFlags::CAPTURED,
        Flooding::Woken => PortFlags { multicast_router: Some(MulticastRouter::Always), ..PortFlags::OPEN },
        Flooding::Ordinary => PortFlags::OPEN,
    }
}

/// One entry, or one for each VLAN: a bridge that filters keeps them apart.
fn targets(mac: MacAddr, vlans: Option<&Vlans>, port: u32) -> Vec<FdbTarget> {
    let target = |vlan| FdbTarget { port, mac, vlan };
    match vlans {
        None => vec![target(None)],
        Some(vlans) => vlans.all().map(|vlan| target(Some(vlan))).collect(),
    }
}

pub(super) fn turn(mac: MacAddr, vlans: Option<&Vlans>, tap: u32) -> Result<Vec<FdbTurn>, Error> {
    let turn = |target| FdbTurn::new(target, FdbState::Reachable);
    targets(mac, vlans, tap).into_iter().map(turn).collect()
}

impl Net {
    pub(super) async fn filtered_vlans(
        &self,
        bridge: u32,
        port: Option<u32>,
    ) -> Result<Option<Vlans>, Error> {
        let link = self.link_by_index(bridge).await?;
        let Some(link) = link.filter(|link| link.filters_vlans) else { return Ok(None) };
        match port {
            Some(port) => self.vlans(port).await.map(Some),
            None => Ok(Some(link.default_vlan.map_or_else(Vlans::default, Vlans::access))),
        }
    }

    pub(super) async fn divert(
        &self,
        mac: MacAddr,
        vlans: Option<&Vlans>,
        listener: u32,
    ) -> Result<(), Error> {
        if let Some(vlans) = vlans {
            self.join_tagged(listener, vlans).await?;
        }
        self.replace_all(targets(mac, vlans, listener), FdbState::Sticky).await
    }

    pub(super) async fn give(&self, mac: MacAddr, vlans: Option<&Vlans>, tap: u32) -> Result<(), Error> {
        self.replace_all(targets(mac, vlans, tap), FdbState::Reachable).await
    }

    async fn replace_all(&self, targets: Vec<FdbTarget>, state: FdbState) -> Result<(), Error> {
        for target in targets {
            self.fdb_replace(target, state).await?;
        }
        Ok(())
    }

    pub(super) async fn diverted(&self, listener: u32) -> Result<BTreeSet<MacAddr>, Error> {
        let entries = self.fdb_list(listener).await?.into_iter();
        let sticky = entries.filter(|entry| entry.state == FdbState::Sticky);
        Ok(sticky.map(|entry| entry.target.mac).collect())
    }

    pub(super) async fn forget(&self, mac: MacAddr, listener: u32) -> Result<(), Error> {
        // Without a VLAN the kernel forgets it in all of the port's.
        self.fdb_delete(FdbTarget { port: listener, mac, vlan: None }).await.map(drop)
    }
}
