//! AF_PACKET sockets: to receive from a link, to listen in on one, to inject into one.
//!
//! All of them exchange frames with their virtio-net header ([`VnetHdr`], `PACKET_VNET_HDR`), so
//! that segmentation and partial checksums of local senders survive. See packet(7) and the
//! kernel's `net/packet/af_packet.c`.

mod batch;
mod filter;
mod header;
mod option;
mod send;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

pub use batch::{Batch, Frame};
pub use filter::{Direction, Filter};
pub use header::{VlanTag, VnetHdr};
pub use send::SendError;

/// Why a packet socket could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no link of this name here.
    #[error("there is no network interface {0}: check its name, and the network namespace")]
    NoLink(String),
    /// The process may not use packet sockets.
    #[error("packet sockets are not allowed: grant CAP_NET_RAW and CAP_NET_ADMIN")]
    NotAllowed(#[source] std::io::Error),
    /// The link was taken down; frames come again once it is up.
    #[error("the network interface of the packet socket is down")]
    LinkDown,
    /// The link was deleted: this socket never receives again.
    #[error("the network interface of the packet socket is gone")]
    LinkGone,
    /// Another failure of the named call.
    #[error("packet socket: {call}")]
    System {
        /// The call or option that failed.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    fn of(call: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => Self::NotAllowed(errno.into()),
            Errno::NETDOWN => Self::LinkDown,
            Errno::NODEV | Errno::NXIO => Self::LinkGone,
            _ => Self::System { call, source: errno.into() },
        }
    }
}

/// Counters of a socket since they were last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that passed the filter, those dropped among them.
    pub frames: u64,
    /// Frames dropped because the receive buffer was full.
    pub dropped: u64,
}

/// A non-blocking AF_PACKET socket bound to one link.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    marks: bool,
}

impl PacketSocket {
    /// What the kernel counts for a frame that waits besides its octets, at least: `struct sk_buff` and
    /// `struct skb_shared_info`.
    pub const OVERHEAD: u64 = 512;

    /// Opens a socket that receives every frame that arrives on the link, whatever its
    /// destination (promiscuous), but none that this host sends on it. It can also [`send`].
    ///
    /// `receive_buffer`: bytes, not limited by `net.core.rmem_max`; the kernel also counts its
    /// own overhead of some 300 to 800 bytes a frame against it.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::NotAllowed`] without CAP_NET_RAW and CAP_NET_ADMIN.
    ///
    /// [`send`]: Self::send
    pub fn open_receive(link: &str, receive_buffer: u32) -> Result<Self, Error> {
        let index = signed_index(link)?;
        let mut socket = Self::create()?;
        option::promiscuous(&socket.fd, index)?;
        option::set(&socket.fd, &option::IGNORE_OUTGOING, 1)?;
        option::set(&socket.fd, &option::RECEIVE_BUFFER, receive_buffer)?;
        // Kernels before 5.19 do not have it; the frames then all have mark 0.
        socket.marks = option::set(&socket.fd, &option::RECEIVE_MARK, 1).is_ok();
        socket.bind(index, libc::ETH_P_ALL)
    }

    /// Opens a socket that sees a copy of the frames that `filter` accepts, and nothing else.
    ///
    /// # Errors
    /// As [`PacketSocket::open_receive`].
    pub fn open_sniff(link: &str, filter: &Filter, receive_buffer: u32) -> Result<Self, Error> {
        let index = signed_index(link)?;
        let socket = Self::create()?;
        // Before the bind, so that not one frame passes unfiltered.
        option::attach_filter(&socket.fd, filter)?;
        if filter.direction() == Direction::Incoming {
            option::set(&socket.fd, &option::IGNORE_OUTGOING, 1)?;
        }
        option::set(&socket.fd, &option::RECEIVE_BUFFER, receive_buffer)?;
        socket.bind(index, libc::ETH_P_ALL)
    }

    /// Has the socket see what another filter accepts from now on. What waits stays.
    ///
    /// `filter` must be of the same [`Direction`] as the one that it was opened with.
    ///
    /// # Errors
    /// None is known to happen on an open socket.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), Error> {
        option::attach_filter(&self.fd, filter)
    }

    /// Opens a socket that only sends on the link.
    ///
    /// With `bypass` frames skip the queueing discipline, and a full device ring says
    /// [`SendError::Full`] instead of losing the frame without a word. The kernel does not
    /// segment those frames: send GSO frames to a tap without offloads by a socket without it.
    /// `send_buffer`: bytes, not limited by `net.core.wmem_max`.
    ///
    /// # Errors
    /// As [`PacketSocket::open_receive`].
    pub fn open_inject(link: &str, bypass: bool, send_buffer: u32) -> Result<Self, Error> {
        let index = signed_index(link)?;
        let socket = Self::create()?;
        option::set(&socket.fd, &option::QDISC_BYPASS, u32::from(bypass))?;
        option::set(&socket.fd, &option::SEND_BUFFER, send_buffer)?;
        socket.bind(index, 0)
    }

    /// Can the kernel tell the marks of received frames (`SO_RCVMARK`, Linux 5.19)?
    #[must_use]
    pub fn has_marks(&self) -> bool {
        self.marks
    }

    /// Takes the waiting frames, as many as `batch` has room for; does not wait for any.
    /// Returns how many; [`Batch::frames`] has them.
    ///
    /// # Errors
    /// [`Error::LinkDown`] once each time the link goes down, [`Error::LinkGone`].
    pub fn receive(&self, batch: &mut Batch) -> Result<usize, Error> {
        batch.receive(self.fd.as_fd())
    }

    /// Sends one frame (Ethernet header first, no FCS) with its virtio-net header.
    ///
    /// # Errors
    /// [`SendError::Full`] when it should be tried again later; the frame was not sent.
    pub fn send(&self, header: &VnetHdr, frame: &[u8]) -> Result<(), SendError> {
        send::one(self.fd.as_fd(), header, frame)
    }

    /// Sends the frames in order and returns how many were sent, at least one of them unless
    /// `frames` is empty. What is left was not sent; calling again with it tells why.
    ///
    /// # Errors
    /// Why the first frame could not be sent.
    pub fn send_many(&self, frames: &[(VnetHdr, &[u8])]) -> Result<usize, SendError> {
        send::many(self.fd.as_fd(), frames)
    }

    /// Reads the socket's counters and sets them to zero.
    ///
    /// # Errors
    /// None is known to happen on an open socket.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        option::statistics(&self.fd)
    }

    /// Octets of frames that wait to be received, with at least [`PacketSocket::OVERHEAD`] for each.
    ///
    /// # Errors
    /// None is known to happen on an open socket.
    pub fn waiting(&self) -> Result<u64, Error> {
        option::in_use(&self.fd).map(u64::from)
    }

    fn create() -> Result<Self, Error> {
        // Protocol 0: it receives nothing until it is bound with one.
        let fd = option::socket()?;
        option::set(&fd, &option::VNET_HDR, 1)?;
        option::set(&fd, &option::AUXDATA, 1)?;
        Ok(Self { fd, marks: false })
    }

    fn bind(self, index: i32, protocol: i32) -> Result<Self, Error> {
        option::bind(&self.fd, index, protocol)?;
        Ok(self)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The index of the network interface `link`, as it is right now.
///
/// # Errors
/// [`Error::NoLink`].
pub fn link_index(link: &str) -> Result<u32, Error> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::of("socket", errno))?;
    rustix::net::netdevice::name_to_index(&socket, link).map_err(|_| Error::NoLink(link.to_owned()))
}

/// The same, as packet sockets take it.
fn signed_index(link: &str) -> Result<i32, Error> {
    i32::try_from(link_index(link)?).map_err(|_| Error::NoLink(link.to_owned()))
}
