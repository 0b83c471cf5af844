//! Bridge ports: what they learn, flood and suppress.

use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    LinkBridgePort,
    packet_route::link::{BridgeMulticastRouterType, InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo},
};

use crate::{Error, Net};

/// Whether a port is taken for the way to a multicast router, and so gets all multicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastRouter {
    /// Never.
    Never,
    /// When a router was heard on it: the kernel's default.
    Learned,
    /// Always.
    Always,
}

/// Flags of a bridge port; `None` leaves one as it is. See bridge(8), `bridge link set`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Learn the addresses that are heard on the port.
    pub learning: Option<bool>,
    /// Send it frames for unknown addresses.
    pub flood: Option<bool>,
    /// Send it multicast that nobody subscribed to.
    pub mcast_flood: Option<bool>,
    /// Send it broadcasts.
    pub bcast_flood: Option<bool>,
    /// Send it all multicast.
    pub multicast_router: Option<MulticastRouter>,
    /// Do not send it ARP requests and neighbour solicitations that the bridge itself can
    /// answer. (Those that it cannot answer are still flooded.)
    pub neigh_suppress: Option<bool>,
}

impl PortFlags {
    /// For a port on which the surrogate listens: it learns nothing there, gets no unknown
    /// unicast, and hears every broadcast and multicast.
    pub const SURROGATE: Self = Self {
        learning: Some(false),
        flood: Some(false),
        mcast_flood: Some(true),
        bcast_flood: Some(true),
        multicast_router: Some(MulticastRouter::Always),
        neigh_suppress: None,
    };

    /// For the tap of a captured guest: nothing that is flooded reaches it, and what it may
    /// still send moves no address.
    pub const CAPTURED: Self = Self {
        learning: Some(false),
        flood: Some(false),
        mcast_flood: Some(false),
        bcast_flood: Some(false),
        multicast_router: Some(MulticastRouter::Never),
        neigh_suppress: None,
    };

    /// For the tap of a running guest: the kernel's defaults.
    pub const OPEN: Self = Self {
        learning: Some(true),
        flood: Some(true),
        mcast_flood: Some(true),
        bcast_flood: Some(true),
        multicast_router: Some(MulticastRouter::Learned),
        neigh_suppress: None,
    };

    /// The first flag that `wanted` has and that is otherwise here, by its name in bridge(8).
    #[must_use]
    pub fn first_difference(&self, wanted: &Self) -> Option<&'static str> {
        fn differs<T: PartialEq>(wanted: Option<T>, got: Option<T>) -> bool {
            wanted.is_some() && wanted != got
        }
        [
            ("learning", differs(wanted.learning, self.learning)),
            ("flood", differs(wanted.flood, self.flood)),
            ("mcast_flood", differs(wanted.mcast_flood, self.mcast_flood)),
            ("bcast_flood", differs(wanted.bcast_flood, self.bcast_flood)),
            ("mcast_router", differs(wanted.multicast_router, self.multicast_router)),
            ("neigh_suppress", differs(wanted.neigh_suppress, self.neigh_suppress)),
        ]
        .into_iter()
        .find_map(|(name, differs)| differs.then_some(name))
    }

    fn attributes(&self) -> Vec<InfoBridgePort> {
        let router = self.multicast_router.map(|router| match router {
            MulticastRouter::Never => BridgeMulticastRouterType::Disabled,
            MulticastRouter::Learned => BridgeMulticastRouterType::TempQuery,
            MulticastRouter::Always => BridgeMulticastRouterType::Permanent,
        });
        [
            self.learning.map(InfoBridgePort::Learning),
            self.flood.map(InfoBridgePort::UnicastFlood),
            self.mcast_flood.map(InfoBridgePort::MulticastFlood),
            self.bcast_flood.map(InfoBridgePort::BroadcastFlood),
            router.map(InfoBridgePort::MulticastRouter),
            self.neigh_suppress.map(InfoBridgePort::NeighSupress),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn read(&mut self, attribute: &InfoBridgePort) {
        match attribute {
            InfoBridgePort::Learning(on) => self.learning = Some(*on),
            InfoBridgePort::UnicastFlood(on) => self.flood = Some(*on),
            InfoBridgePort::MulticastFlood(on) => self.mcast_flood = Some(*on),
            InfoBridgePort::BroadcastFlood(on) => self.bcast_flood = Some(*on),
            InfoBridgePort::NeighSupress(on) => self.neigh_suppress = Some(*on),
            InfoBridgePort::MulticastRouter(router) => {
                self.multicast_router = Some(match router {
                    BridgeMulticastRouterType::Disabled => MulticastRouter::Never,
                    BridgeMulticastRouterType::Permanent => MulticastRouter::Always,
                    _ => MulticastRouter::Learned,
                });
            }
            _ => {}
        }
    }
}

impl Net {
    /// Sets the flags of a bridge port, and reads them back: a kernel that does not know one
    /// takes it without a word.
    ///
    /// # Errors
    /// [`Error::FlagIgnored`]; when the link is in no bridge.
    pub async fn set_port_flags(&self, index: u32, flags: PortFlags) -> Result<(), Error> {
        let message = flags
            .attributes()
            .into_iter()
            .fold(LinkBridgePort::new(index), |port, flag| port.append_info_data(flag))
            .build();
        let what = || format!("set flags of bridge port #{index}");
        let set = self.ask(self.handle.link().set_port(message).execute()).await;
        set.map_err(|error| Error::netlink(what, error))?;
        match self.port_flags(index).await?.first_difference(&flags) {
            Some(flag) => Err(Error::FlagIgnored { port: format!("#{index}"), flag }),
            None => Ok(()),
        }
    }

    /// The flags of a bridge port; all `None` for a link that is in no bridge.
    ///
    /// # Errors
    /// [`Error::NoLink`], or when the kernel cannot be asked.
    pub async fn port_flags(&self, index: u32) -> Result<PortFlags, Error> {
        let request = self.handle.link().get().match_index(index);
        let answer = self.ask(async { request.execute().boxed().try_next().await }).await;
        let message = answer
            .map_err(|error| Error::netlink(|| format!("read bridge port #{index}"), error))?
            .ok_or_else(|| Error::NoLink(format!("#{index}")))?;
        let mut flags = PortFlags::default();
        for attribute in message.attributes.iter().filter_map(port_attributes).flatten() {
            flags.read(attribute);
        }
        Ok(flags)
    }
}

fn port_attributes(attribute: &LinkAttribute) -> Option<&Vec<InfoBridgePort>> {
    let LinkAttribute::LinkInfo(infos) = attribute else { return None };
    infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => Some(attributes),
        _ => None,
    })
}
