//! A bridge's forwarding entries: which port an address is behind.

use dormouse_types::MacAddr;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use crate::{Error, Net, PATIENCE, link::errno, patience::Patience};

/// How firmly an address is tied to its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbState {
    /// Stays, and does not move when the address is heard on another port (`NTF_STICKY`,
    /// Linux 4.20): for an address that the surrogate stands in for.
    Sticky,
    /// As if learned: ages, and moves to the port where the address is heard.
    Reachable,
    /// Any other kind; only ever read.
    Other,
}

/// What a forwarding entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FdbTarget {
    /// Index of the bridge port.
    pub port: u32,
    /// The address behind it.
    pub mac: MacAddr,
    /// The VLAN, on a bridge that filters them (1 to 4094).
    pub vlan: Option<u16>,
}

/// A forwarding entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// Which port, address, VLAN.
    pub target: FdbTarget,
    /// How firmly.
    pub state: FdbState,
}

/// Requests under way at a time: more would overrun the socket's buffer with answers.
const WINDOW: usize = 128;

/// ENOENT.
const NO_ENTRY: i32 = 2;

impl Net {
    /// Makes the bridge send frames for an address to a port, from wherever they went before.
    ///
    /// A bridge takes note of a port's coming up some time after it is set up or opened: an entry
    /// that is not sticky waits for that, up to [`PATIENCE`].
    ///
    /// # Errors
    /// When the link is in no bridge. [`Error::PortDown`] for [`FdbState::Reachable`] on a port
    /// that does not forward, as a tap that nobody has open.
    pub async fn fdb_replace(&self, target: FdbTarget, state: FdbState) -> Result<(), Error> {
        let mut patience = Patience::new(PATIENCE);
        loop {
            let Err(error) = self.transact(replacement(target, state)).await else { return Ok(()) };
            let error = Error::netlink(|| describe(&target), error);
            // EPERM is what the kernel says to a port that cannot learn now, too.
            if !matches!(error, Error::NotAllowed { .. }) || state == FdbState::Sticky {
                return Err(error);
            }
            if !patience.wait().await {
                return Err(self.port_down(target.port).await?.unwrap_or(error));
            }
        }
    }

    /// The error for a port that does not forward, if that is so.
    async fn port_down(&self, port: u32) -> Result<Option<Error>, Error> {
        let link = self.link_by_index(port).await?;
        Ok(link.filter(|link| !link.running).map(|link| Error::PortDown { port: link.name }))
    }

    /// [`Net::fdb_replace`] for many at once. All are tried.
    ///
    /// # Errors
    /// The first error.
    pub async fn fdb_replace_many(&self, targets: &[FdbTarget], state: FdbState) -> Result<(), Error> {
        let requests = targets.iter().map(|target| self.fdb_replace(*target, state));
        let results: Vec<_> = futures::stream::iter(requests).buffered(WINDOW).collect().await;
        results.into_iter().collect()
    }

    /// Removes an entry. Says false if it was not there.
    ///
    /// # Errors
    /// When the link is in no bridge.
    pub async fn fdb_delete(&self, target: FdbTarget) -> Result<bool, Error> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::DelNeighbour(message(target)));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        match self.transact(request).await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(NO_ENTRY) => Ok(false),
            Err(error) => Err(Error::netlink(|| describe(&target), error)),
        }
    }

    /// The entries of a bridge port.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn fdb_list(&self, port: u32) -> Result<Vec<FdbEntry>, Error> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let messages: Vec<_> = self
            .ask(async { request.execute().try_collect().await })
            .await
            .map_err(|error| Error::netlink(|| format!("list addresses behind #{port}"), error))?;
        Ok(messages.iter().filter(|m| m.header.ifindex == port).filter_map(parse).collect())
    }

    async fn transact(&self, request: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), rtnetlink::Error> {
        self.ask(async {
            let mut answers = self.handle.clone().request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
        .await
    }
}

/// A prepared [`Net::fdb_replace`], for a thread without a runtime that has to know that the
/// bridge has changed when the call returns.
pub struct FdbTurn {
    socket: Socket,
    request: Vec<u8>,
    target: FdbTarget,
}

impl FdbTurn {
    /// Prepares the change, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When no netlink socket can be had.
    pub fn new(target: FdbTarget, state: FdbState) -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Connect)?;
        socket.bind_auto().map_err(Error::Connect)?;
        let mut message = replacement(target, state);
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        Ok(Self { socket, request, target })
    }

    /// Makes the change. The kernel makes it within the call that sends the request, so that no
    /// time passes between it and the return.
    ///
    /// # Errors
    /// When the link is in no bridge.
    pub fn make(&self) -> Result<(), Error> {
        let refused = |source| Error::Netlink { what: describe(&self.target), source };
        self.socket.send(&self.request, 0).map_err(refused)?;
        let (answer, _) = self.socket.recv_from_full().map_err(refused)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| refused(std::io::Error::other(error)))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(refused(error.to_io())),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for FdbTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FdbTurn").field("target", &self.target).finish_non_exhaustive()
    }
}

fn describe(target: &FdbTarget) -> String {
    format!("change the bridge's way to {} by port #{}", target.mac, target.port)
}

fn replacement(target: FdbTarget, state: FdbState) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut entry = message(target);
    entry.header.state = match state {
        FdbState::Sticky => NeighbourState::Noarp,
        FdbState::Reachable | FdbState::Other => NeighbourState::Reachable,
    };
    if state == FdbState::Sticky {
        entry.header.flags |= NeighbourFlags::Sticky;
    }
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    request
}

fn message(target: FdbTarget) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = target.port;
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(target.mac.0.to_vec()));
    entry.attributes.extend(target.vlan.map(NeighbourAttribute::Vlan));
    entry
}

/// An entry of a bridge; `None` for one of the link itself.
fn parse(message: &NeighbourMessage) -> Option<FdbEntry> {
    let has_master = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::Controller(_));
    message.attributes.iter().find(|attribute| has_master(attribute))?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => MacAddr::from_slice(bytes),
        _ => None,
    })?;
    let vlan = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Vlan(id) => Some(*id),
        _ => None,
    });
    let state = match message.header.state {
        _ if message.header.flags.contains(NeighbourFlags::Sticky) => FdbState::Sticky,
        NeighbourState::Reachable | NeighbourState::Stale => FdbState::Reachable,
        _ => FdbState::Other,
    };
    Some(FdbEntry { target: FdbTarget { port: message.header.ifindex, mac, vlan }, state })
}
