//! Links: what there is, and its general properties.

use std::time::Duration;

use dormouse_types::MacAddr;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use crate::{Error, Net, patience::Patience};

/// A link as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index: never reused for another link as long as the host runs, or nearly so.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its own Ethernet address.
    pub mac: Option<MacAddr>,
    /// Administratively up (`ip link set up`)?
    pub up: bool,
    /// Able to pass frames now (up, and with a carrier)?
    pub running: bool,
    /// Index of the bridge (or other controller) that it is in.
    pub master: Option<u32>,
    /// Maximum transmission unit, bytes.
    pub mtu: u32,
    /// Is it a Linux bridge?
    pub is_bridge: bool,
    /// A bridge that tells VLANs apart (`vlan_filtering 1`)?
    pub filters_vlans: bool,
    /// The VLAN that a bridge puts new ports into, untagged, if it filters.
    pub default_vlan: Option<u16>,
    /// Transferred since it was made.
    pub counters: LinkCounters,
}

/// What went through a link. For a tap *received* is what the guest sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes that the host received from the link.
    pub received_bytes: u64,
    /// Frames that the host received from the link.
    pub received_frames: u64,
    /// Frames to group addresses among `received_frames`, where the driver counts them.
    pub received_multicast: u64,
    /// Bytes that the host sent on the link.
    pub sent_bytes: u64,
    /// Frames that the host sent on the link.
    pub sent_frames: u64,
    /// Frames that the host should have sent on the link and dropped.
    pub sent_dropped: u64,
}

impl Net {
    /// The link of this name, `None` if there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let request = self.handle.link().get().match_name(name.to_owned());
        Ok(found(self.ask(async { request.execute().boxed().try_next().await }).await, name)?
            .map(|message| parse(&message)))
    }

    /// The link of this index, `None` if there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let request = self.handle.link().get().match_index(index);
        Ok(found(self.ask(async { request.execute().boxed().try_next().await }).await, &format!("#{index}"))?
            .map(|message| parse(&message)))
    }

    /// All links here.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = self.handle.link().get();
        let messages: Result<Vec<_>, _> = self.ask(async { request.execute().try_collect().await }).await;
        let messages =
            messages.map_err(|error| Error::netlink(|| "list network interfaces".into(), error))?;
        Ok(messages.iter().map(parse).collect())
    }

    /// The ports of a bridge.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn ports(&self, bridge: u32) -> Result<Vec<Link>, Error> {
        Ok(self.links().await?.into_iter().filter(|link| link.master == Some(bridge)).collect())
    }

    /// The index of a link that must exist.
    ///
    /// # Errors
    /// [`Error::NoLink`].
    pub async fn index(&self, name: &str) -> Result<u32, Error> {
        self.link(name).await?.map(|link| link.index).ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// The bridge of this name, checked to be one.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotABridge`].
    pub async fn bridge(&self, name: &str) -> Result<Link, Error> {
        let link = self.link(name).await?.ok_or_else(|| Error::NoBridge(name.to_owned()))?;
        if link.is_bridge { Ok(link) } else { Err(Error::NotABridge(name.to_owned())) }
    }

    /// Makes a pair of links, each the other's far end, both down.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub async fn create_veth(&self, name: &str, peer: &str) -> Result<(), Error> {
        let request = self.handle.link().add(LinkVeth::new(name, peer).build());
        let made = self.ask(request.execute()).await;
        made.map_err(|e| Error::netlink(|| format!("make the pair {name}, {peer}"), e))
    }

    /// Makes a bridge, down and without ports.
    ///
    /// # Errors
    /// When the name is taken.
    pub async fn create_bridge(&self, name: &str) -> Result<(), Error> {
        let request = self.handle.link().add(LinkBridge::new(name).build());
        let made = self.ask(request.execute()).await;
        made.map_err(|e| Error::netlink(|| format!("make bridge {name}"), e))
    }

    /// Deletes a link (and a pair's other half). Says false if it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_link(&self, name: &str) -> Result<bool, Error> {
        let Some(link) = self.link(name).await? else { return Ok(false) };
        let request = self.handle.link().del(link.index);
        let deleted = self.ask(request.execute()).await;
        deleted.map_err(|e| Error::netlink(|| format!("delete {name}"), e))?;
        Ok(true)
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.change(index, "set up", LinkMessageBuilder::up).await
    }

    /// Waits until a link can pass frames; false if it still cannot after `patience`.
    ///
    /// The kernel drops what is sent by way of a link's queue in the milliseconds between its
    /// coming up (set up, or a tap opened) and its taking note of that.
    ///
    /// # Errors
    /// [`Error::NoLink`].
    pub async fn wait_running(&self, index: u32, patience: Duration) -> Result<bool, Error> {
        let mut patience = Patience::new(patience);
        loop {
            let link = self.link_by_index(index).await?.ok_or_else(|| Error::NoLink(format!("#{index}")))?;
            if link.running {
                return Ok(true);
            }
            if !patience.wait().await {
                return Ok(false);
            }
        }
    }

    /// Sets a link down: a tap then drops what waits in it.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_down(&self, index: u32) -> Result<(), Error> {
        self.change(index, "set down", LinkMessageBuilder::down).await
    }

    /// Puts a link into a bridge; no change if it is in it.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_master(&self, index: u32, bridge: u32) -> Result<(), Error> {
        self.change(index, "put into its bridge", |link| link.controller(bridge)).await
    }

    /// Takes a link out of its bridge.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_nomaster(&self, index: u32) -> Result<(), Error> {
        self.change(index, "take out of its bridge", LinkMessageBuilder::nocontroller).await
    }

    /// Sets the maximum transmission unit, in bytes.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the link cannot have it.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        self.change(index, "set the MTU of", |link| link.mtu(mtu)).await
    }

    /// Sets a link's own Ethernet address.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the link cannot have it.
    pub async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.change(index, "set the address of", |link| link.address(mac.0.to_vec())).await
    }

    /// Sets how many frames a link holds that cannot be sent yet. A tap's ring is resized.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_txqlen(&self, index: u32, frames: u32) -> Result<(), Error> {
        let attribute = LinkAttribute::TxQueueLen(frames);
        self.change(index, "set the queue length of", |link| link.append_extra_attribute(attribute)).await
    }

    /// Keeps the host from answering ARP on a link.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel refuses.
    pub async fn set_arp_off(&self, index: u32) -> Result<(), Error> {
        self.change(index, "turn ARP off on", |link| link.arp(false)).await
    }

    /// Keeps the host from having addresses of its own, and from speaking IPv6, on a link. For
    /// the calling thread's network namespace, which has to be the handle's.
    ///
    /// # Errors
    /// When /proc/sys cannot be written. No error on a host without IPv6.
    pub fn disable_ipv6(&self, name: &str) -> Result<(), Error> {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        match std::fs::write(&path, "1") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| Error::Sysctl { path, source }),
        }
    }

    async fn change(
        &self,
        index: u32,
        what: &str,
        with: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = with(LinkUnspec::new_with_index(index)).build();
        let result = self.ask(self.handle.link().change(message).execute()).await;
        result.map_err(|error| {
            if errno(&error) == Some(NO_DEVICE) {
                return Error::NoLink(format!("#{index}"));
            }
            Error::netlink(|| format!("{what} network interface #{index}"), error)
        })
    }
}

/// ENODEV.
const NO_DEVICE: i32 = 19;

/// The error number with which the kernel refused a request.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

fn found(
    answer: Result<Option<LinkMessage>, rtnetlink::Error>,
    name: &str,
) -> Result<Option<LinkMessage>, Error> {
    match answer {
        Err(error) if errno(&error) == Some(NO_DEVICE) => Ok(None),
        other => other.map_err(|error| Error::netlink(|| format!("look up network interface {name}"), error)),
    }
}

/// Reads what the kernel says of a link.
pub(crate) fn parse(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: flags.contains(LinkFlags::Up),
        // With a carrier, and the kernel has taken note of it.
        running: flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
        master: None,
        mtu: 0,
        is_bridge: false,
        filters_vlans: false,
        default_vlan: None,
        counters: LinkCounters::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = MacAddr::from_slice(bytes),
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
                infos.iter().for_each(|info| read_bridge(&mut link, info));
            }
            LinkAttribute::Stats64(stats) => {
                link.counters = LinkCounters {
                    received_bytes: stats.rx_bytes,
                    received_frames: stats.rx_packets,
                    received_multicast: stats.multicast,
                    sent_bytes: stats.tx_bytes,
                    sent_frames: stats.tx_packets,
                    sent_dropped: stats.tx_dropped,
                };
            }
            _ => {}
        }
    }
    link
}

fn read_bridge(link: &mut Link, info: &LinkInfo) {
    let LinkInfo::Data(InfoData::Bridge(settings)) = info else { return };
    for setting in settings {
        match setting {
            InfoBridge::VlanFiltering(on) => link.filters_vlans = *on,
            InfoBridge::VlanDefaultPvid(vlan) => link.default_vlan = Some(*vlan).filter(|vlan| *vlan != 0),
            _ => {}
        }
    }
}
