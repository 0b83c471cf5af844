//! Sending frames, one or many at a time.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::Errno;

use super::VnetHdr;

/// Frames handed to the kernel in one call.
const CHUNK: usize = 64;

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The device's ring or the socket's buffer is full: try again later.
    #[error("the network interface takes no more frames now")]
    Full,
    /// The frame is longer than the link's MTU, or shorter than an Ethernet header.
    #[error("a frame of this length does not fit the network interface")]
    Length,
    /// The kernel makes no sense of the virtio-net header.
    #[error("the kernel refuses the frame's virtio-net header")]
    Header,
    /// The link is down.
    #[error("the network interface is down")]
    LinkDown,
    /// The link was deleted.
    #[error("the network interface is gone")]
    LinkGone,
    /// Another failure.
    #[error("cannot send a frame")]
    System(#[source] std::io::Error),
}

impl From<Errno> for SendError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOBUFS | Errno::AGAIN | Errno::NOMEM => Self::Full,
            Errno::MSGSIZE => Self::Length,
            Errno::INVAL => Self::Header,
            Errno::NETDOWN => Self::LinkDown,
            Errno::NODEV | Errno::NXIO => Self::LinkGone,
            other => Self::System(other.into()),
        }
    }
}

pub(super) fn one(fd: BorrowedFd<'_>, header: &VnetHdr, frame: &[u8]) -> Result<(), SendError> {
    loop {
        match rustix::io::writev(fd, &[IoSlice::new(&header.0), IoSlice::new(frame)]) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(super) fn many(fd: BorrowedFd<'_>, frames: &[(VnetHdr, &[u8])]) -> Result<usize, SendError> {
    let mut sent = 0;
    while sent < frames.len() {
        let chunk = &frames[sent..frames.len().min(sent + CHUNK)];
        match chunk_of(fd, chunk) {
            Ok(0) => break,
            Ok(n) => {
                sent += n;
                if n < chunk.len() {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) if sent == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// At most [`CHUNK`] frames by one sendmmsg(2).
fn chunk_of(fd: BorrowedFd<'_>, frames: &[(VnetHdr, &[u8])]) -> Result<usize, Errno> {
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts: Vec<[libc::iovec; 2]> =
        frames.iter().map(|(header, frame)| [part(&header.0), part(frame)]).collect();
    let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
    let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    // SAFETY: `messages` has `count` elements; each points to two iovecs in `parts`, which point
    // into `frames`. All three outlive the call, and sending only reads what the iovecs point to.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| super::option::last_errno())
}

fn message(parts: &mut [libc::iovec; 2]) -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid `mmsghdr`: null pointers, zero lengths.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = parts.as_mut_ptr();
    message.msg_hdr.msg_iovlen = parts.len();
    message
}
