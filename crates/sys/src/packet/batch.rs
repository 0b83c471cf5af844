//! Receiving many frames in one call.

use std::{
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::Errno;

use super::{Error, VlanTag, VnetHdr};

/// Room for the two control messages that we ask for: auxiliary data and mark.
const CONTROL_WORDS: usize = 12;

/// A received frame, in its [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What is still to be done to it.
    pub header: VnetHdr,
    /// From the Ethernet header on, without the VLAN tag, without FCS.
    pub bytes: &'a [u8],
    /// The VLAN tag that the kernel took out.
    pub vlan: Option<VlanTag>,
    /// Was it sent by this host, rather than received by the link?
    pub outgoing: bool,
    /// Octets on the wire, as far as the kernel tells: more than those of `bytes` if it is truncated.
    pub length: usize,
    /// Is `bytes` only its start: longer than the batch's buffers, or cut by the filter?
    pub truncated: bool,
    /// The mark that a program on the link's way gave it; 0 if none did.
    pub mark: u32,
}

impl Frame<'_> {
    /// Header and bytes as they are to be sent on, with the VLAN tag back in its place.
    #[must_use]
    pub fn restored(&self) -> (VnetHdr, Vec<u8>) {
        let Some((addresses, rest)) = self.bytes.split_at_checked(12) else {
            return (self.header, self.bytes.to_vec());
        };
        match self.vlan.and_then(|tag| Some((tag, self.header.shifted(4)?))) {
            Some((tag, header)) => (header, [addresses, &tag.to_bytes(), rest].concat()),
            None => (self.header, self.bytes.to_vec()),
        }
    }
}

/// Reusable room for received frames.
pub struct Batch {
    room: usize,
    bytes: Vec<u8>,
    control: Vec<[u64; CONTROL_WORDS]>,
    senders: Vec<libc::sockaddr_ll>,
    parts: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    filled: usize,
    unreadable: u64,
}

// SAFETY: the raw pointers in `parts` and `messages` only ever point into this batch's own heap
// buffers, and are written anew before each use; nothing else reaches those buffers.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("capacity", &self.messages.len()).field("filled", &self.filled).finish()
    }
}

impl Batch {
    /// The longest frame with its header that Linux passes on unless told otherwise.
    pub const LONGEST: usize = 65536 + 18;

    /// Room for `frames` frames of up to `longest` bytes each.
    #[must_use]
    pub fn new(frames: usize, longest: usize) -> Self {
        let room = longest + VnetHdr::LEN;
        // SAFETY: all-zero bytes are valid for these types: integers and null pointers.
        let (sender, part, message) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            room,
            bytes: vec![0; frames * room],
            control: vec![[0; CONTROL_WORDS]; frames],
            senders: vec![sender; frames],
            parts: vec![part; frames],
            messages: vec![message; frames],
            filled: 0,
            unreadable: 0,
        }
    }

    /// The frames that the last [`PacketSocket::receive`](super::PacketSocket::receive) got.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        (0..self.filled).map(|i| self.frame(i))
    }

    /// Frames that the kernel dropped because it could not describe them by a virtio-net header
    /// (kinds of segmentation that virtio does not know), since the batch was made.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Error> {
        self.filled = 0;
        // Bounded, so that a stream of unreadable frames cannot hold the caller here.
        for _ in 0..self.messages.len() {
            match self.receive_once(fd) {
                Ok(filled) => {
                    self.filled = filled;
                    return Ok(filled);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INVAL) => self.unreadable += 1,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::of("recvmmsg", errno)),
            }
        }
        Ok(0)
    }

    fn receive_once(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.point();
        let count = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        // SAFETY: `messages` has `count` elements, and `point` has just made each of them refer
        // to buffers of this batch with their true lengths; `&mut self` keeps all others away.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| super::option::last_errno())
    }

    /// Makes every message refer to its own buffers.
    fn point(&mut self) {
        let rooms = self.bytes.chunks_exact_mut(self.room);
        let buffers = rooms.zip(&mut self.control).zip(&mut self.senders).zip(&mut self.parts);
        for ((((bytes, control), sender), part), message) in buffers.zip(&mut self.messages) {
            *part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            message.msg_len = 0;
            let header = &mut message.msg_hdr;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
            header.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
            header.msg_flags = 0;
        }
    }

    fn frame(&self, i: usize) -> Frame<'_> {
        let message = &self.messages[i];
        let length = usize::try_from(message.msg_len).unwrap_or(0).min(self.room);
        let whole = &self.bytes[i * self.room..i * self.room + length];
        let (header, bytes) =
            whole.split_first_chunk().map_or((VnetHdr::PLAIN, whole), |(h, b)| (VnetHdr(*h), b));
        let told = self.told(i);
        Frame {
            header,
            bytes,
            vlan: told.vlan,
            length: told.length.max(bytes.len()),
            outgoing: self.senders[i].sll_pkttype == libc::PACKET_OUTGOING,
            truncated: told.cut || message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            mark: told.mark,
        }
    }

    /// Reads the control messages that came with frame `i`.
    fn told(&self, i: usize) -> Told {
        let header = &self.messages[i].msg_hdr;
        let mut told = Told::default();
        // The kernel has replaced the room by what it used.
        let used = header.msg_controllen.min(size_of::<[u64; CONTROL_WORDS]>());
        let words = &self.control[i][..used / size_of::<u64>()];
        let mut at = 0;
        while let Some(message) = Control::at(words, at) {
            told.read(&message);
            at = message.next;
        }
        told
    }
}

/// What the control messages of a frame said.
#[derive(Default)]
struct Told {
    vlan: Option<VlanTag>,
    cut: bool,
    length: usize,
    mark: u32,
}

impl Told {
    fn read(&mut self, message: &Control<'_>) {
        match (message.level, message.kind) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => self.read_auxiliary(message.data),
            (libc::SOL_SOCKET, libc::SO_MARK) => self.mark = word(message.data, 0).unwrap_or(0),
            _ => {}
        }
    }

    /// `struct tpacket_auxdata`: status, len, snaplen (u32 each), mac, net, tci, tpid (u16 each).
    fn read_auxiliary(&mut self, data: &[u8]) {
        let (Some(status), Some(length), Some(snapped)) = (word(data, 0), word(data, 4), word(data, 8))
        else {
            return;
        };
        self.cut = length > snapped;
        self.length = usize::try_from(length).unwrap_or(usize::MAX);
        let half =
            |at: usize| data.get(at..at + 2).and_then(<[u8]>::first_chunk).map(|b| u16::from_ne_bytes(*b));
        if let (true, Some(control), Some(tpid)) =
            (status & libc::TP_STATUS_VLAN_VALID != 0, half(16), half(18))
        {
            let protocol = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { 0x8100 };
            self.vlan = Some(VlanTag { protocol, control });
        }
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// One control message: `struct cmsghdr` (length, level, type), then its data; see cmsg(3).
struct Control<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
    next: usize,
}

impl<'a> Control<'a> {
    fn at(words: &'a [u64], at: usize) -> Option<Self> {
        // SAFETY: the bytes of initialised u64s are initialised, and u8 needs no alignment; the
        // slice covers the same memory for the same lifetime.
        let bytes: &[u8] =
            unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), std::mem::size_of_val(words)) };
        let rest = bytes.get(at..)?;
        let head = size_of::<libc::cmsghdr>();
        let length = usize::from_ne_bytes(*rest.first_chunk()?);
        let (level, kind) = (word(rest, head - 8)?, word(rest, head - 4)?);
        let data = rest.get(head..length)?;
        let next = at + length.next_multiple_of(size_of::<usize>());
        Some(Self { level: level.cast_signed(), kind: kind.cast_signed(), data, next })
    }
}
