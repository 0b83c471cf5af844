//! What happens to links without our doing.

use futures::{Stream, StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::SocketAddr,
};

use crate::{Error, Link, Net, link::parse};

/// A change of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It was made, or something about it changed.
    Changed(Box<Link>),
    /// It was deleted.
    Deleted {
        /// The index that it had.
        index: u32,
        /// The name that it had.
        name: String,
    },
    /// There was more news than could be taken: look at all links again.
    Missed,
}

/// The news of all links of a network namespace, from when it was made on.
#[derive(Debug)]
pub struct Monitor {
    news: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Keeps the connection alive, which ends with its last handle.
    _handle: rtnetlink::Handle,
}

impl Net {
    /// Watches the links of the calling thread's network namespace. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When no netlink socket can be had.
    pub fn monitor() -> Result<Monitor, Error> {
        let (connection, handle, news) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(Error::Connect)?;
        tokio::spawn(connection);
        Ok(Monitor { news, _handle: handle })
    }
}

impl Monitor {
    /// The next event; `None` when the connection has ended. Can be cancelled without loss.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        while let Some((message, _)) = self.news.next().await {
            if let Some(event) = event(message) {
                return Some(event);
            }
        }
        None
    }

    /// The events as a stream.
    pub fn into_stream(self) -> impl Stream<Item = LinkEvent> {
        futures::stream::unfold(self, |mut monitor| async { Some((monitor.next().await?, monitor)) })
    }
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkEvent> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if is_general(&link.header) => {
            Some(LinkEvent::Changed(Box::new(parse(&link))))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if is_general(&link.header) => {
            let Link { index, name, .. } = parse(&link);
            Some(LinkEvent::Deleted { index, name })
        }
        NetlinkPayload::Overrun(_) => Some(LinkEvent::Missed),
        _ => None,
    }
}

/// Messages of the bridge family tell of ports, and of a link's leaving as if it were deleted.
fn is_general(header: &rtnetlink::packet_route::link::LinkHeader) -> bool {
    header.interface_family == AddressFamily::Unspec
}
