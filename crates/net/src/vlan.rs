//! The VLANs of bridge ports (IEEE 802.1Q).

use std::collections::BTreeSet;

use futures::TryStreamExt;
use rtnetlink::{
    LinkBridgeVlan,
    packet_route::{
        AddressFamily,
        link::{AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask},
    },
};

use crate::{Error, Net};

/// The VLANs (1 to 4094) that a port is in, and how frames look there. Zero, where Open vSwitch has
/// it, is that of frames without a tag on a trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// In which one are frames that come in by the port without a tag (the PVID)?
    pub native: Option<u16>,
    /// Frames of these leave by the port without a tag.
    pub untagged: BTreeSet<u16>,
    /// Frames of these leave by the port with one.
    pub tagged: BTreeSet<u16>,
}

impl Vlans {
    /// In one only, untagged.
    #[must_use]
    pub fn access(vlan: u16) -> Self {
        Self { native: Some(vlan), untagged: [vlan].into(), tagged: BTreeSet::new() }
    }

    /// All that the port is in.
    pub fn all(&self) -> impl Iterator<Item = u16> + '_ {
        self.untagged.union(&self.tagged).copied()
    }

    fn add(&mut self, info: BridgeVlanInfo) {
        if info.flags.contains(BridgeVlanInfoFlags::Pvid) {
            self.native = Some(info.vid);
        }
        let side = match info.flags.contains(BridgeVlanInfoFlags::Untagged) {
            true => &mut self.untagged,
            false => &mut self.tagged,
        };
        side.insert(info.vid);
    }
}

impl Net {
    /// The VLANs that a bridge port is in; none if the bridge does not filter them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn vlans(&self, port: u32) -> Result<Vlans, Error> {
        let request = self.handle.link().get();
        // Only a listing of all ports has them.
        let request = request.set_filter_mask(AddressFamily::Bridge, vec![LinkExtentMask::Brvlan]);
        let messages: Vec<_> = self
            .ask(async { request.execute().try_collect().await })
            .await
            .map_err(|error| Error::netlink(|| format!("list the VLANs of bridge port #{port}"), error))?;
        let mut vlans = Vlans::default();
        let ours = messages.iter().filter(|message| message.header.index == port);
        for attribute in ours.flat_map(|message| &message.attributes) {
            let LinkAttribute::AfSpecBridge(specs) = attribute else { continue };
            for spec in specs {
                if let AfSpecBridge::VlanInfo(info) = spec {
                    vlans.add(*info);
                }
            }
        }
        Ok(vlans)
    }

    /// Makes a bridge port a member of VLANs, whose frames come and go there with their tags.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn join_tagged(&self, port: u32, vlans: &Vlans) -> Result<(), Error> {
        for vlan in vlans.all() {
            let message = LinkBridgeVlan::new(port).vlan(vlan, BridgeVlanInfoFlags::empty()).build();
            let joined = self.ask(self.handle.link().set(message).execute()).await;
            joined.map_err(|error| {
                Error::netlink(|| format!("put bridge port #{port} into VLAN {vlan}"), error)
            })?;
        }
        Ok(())
    }
}
