//! A frame as a packet socket gives it: its offload header, and its octets.
//!
//! Local clients' frames come unsegmented and with partial checksums; only the header
//! (`struct virtio_net_hdr`, `PACKET_VNET_HDR` in packet(7)) says so. It must travel with the
//! frame, or the guest gets a wrong checksum.

use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    fmt,
    sync::Arc,
};

use dormouse_sys::{Frame, VnetHdr};
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Cache, Scanners};

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;

/// Octets of a frame that are kept to describe it: all headers.
const START: usize = 256;

/// A frame with its offload header. Cloning shares the octets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    header: VnetHdr,
    bytes: Arc<[u8]>,
}

impl Packet {
    /// Takes a copy of a frame; `None` if there is no whole Ethernet header.
    #[must_use]
    pub(crate) fn new(header: VnetHdr, ethernet: &[u8]) -> Option<Self> {
        (ethernet.len() >= ETHERNET).then(|| Self { header, bytes: ethernet.into() })
    }

    /// Takes a copy of what a socket received, its VLAN tag in place; `None` if it is no whole frame.
    #[must_use]
    pub(crate) fn received(frame: &Frame<'_>) -> Option<Self> {
        match frame {
            Frame { truncated: true, .. } => None,
            Frame { vlan: None, header, bytes, .. } => Self::new(*header, bytes),
            tagged => {
                let (header, bytes) = tagged.restored();
                Self::new(header, &bytes)
            }
        }
    }

    /// Its start, if it is longer: enough to describe it, and cheap to keep.
    #[must_use]
    pub(crate) fn start(self) -> Self {
        match self.bytes.get(..START) {
            Some(start) if self.bytes.len() > START => Self { header: self.header, bytes: start.into() },
            _ => self,
        }
    }

    /// What the kernel, or the guest, is still to do to the frame.
    #[must_use]
    pub(crate) const fn header(&self) -> &VnetHdr {
        &self.header
    }

    /// The frame, from its destination address on.
    #[must_use]
    pub(crate) fn ethernet(&self) -> &[u8] {
        &self.bytes
    }

    /// Whom it is for.
    #[must_use]
    pub(crate) fn destination(&self) -> MacAddr {
        MacAddr::from_slice(&self.bytes).unwrap_or(MacAddr([0; 6]))
    }

    /// Is it for a group?
    #[must_use]
    pub(crate) fn is_group(&self) -> bool {
        self.destination().is_multicast()
    }

    /// Octets that holding it costs.
    #[must_use]
    pub(crate) fn cost(&self) -> u64 {
        (VnetHdr::LEN + self.bytes.len()) as u64
    }
}

/// A frame that came: judged where it lies, copied once when somebody holds it.
pub(crate) struct Arrival<'a> {
    header: VnetHdr,
    bytes: Cow<'a, [u8]>,
    now: Timestamp,
    packet: OnceCell<Packet>,
    scanners: Option<&'a RefCell<Scanners>>,
    from_scanner: OnceCell<bool>,
    /// It came before, and was noted then.
    again: bool,
    cache: Cache,
}

impl<'a> Arrival<'a> {
    /// What a socket received at `now`, its VLAN tag in place; `None` if it is no whole frame.
    /// `scanners` know the sources of its network.
    #[must_use]
    pub(crate) fn received(
        frame: &Frame<'a>,
        now: Timestamp,
        scanners: Option<&'a RefCell<Scanners>>,
    ) -> Option<Self> {
        let (header, bytes) = match frame {
            Frame { truncated: true, .. } => return None,
            Frame { vlan: None, header, bytes, .. } => (*header, Cow::Borrowed(*bytes)),
            tagged => {
                let (header, bytes) = tagged.restored();
                (header, Cow::Owned(bytes))
            }
        };
        let whole = bytes.len() >= ETHERNET;
        let (packet, from_scanner) = (OnceCell::new(), OnceCell::new());
        let cache = Cache::default();
        whole.then_some(Self { header, bytes, now, packet, scanners, from_scanner, again: false, cache })
    }

    /// A frame that is held already, looked at once more.
    #[must_use]
    pub(crate) fn again(packet: &'a Packet, now: Timestamp, scanners: Option<&'a RefCell<Scanners>>) -> Self {
        Self {
            header: packet.header,
            bytes: Cow::Borrowed(&packet.bytes),
            now,
            packet: OnceCell::from(packet.clone()),
            scanners,
            from_scanner: OnceCell::new(),
            again: true,
            cache: Cache::default(),
        }
    }

    /// The same; whether its source is a scanner was found out when it came.
    #[must_use]
    pub(crate) fn once_more(packet: &'a Packet, now: Timestamp, from_scanner: bool) -> Self {
        Self { from_scanner: OnceCell::from(from_scanner), ..Self::again(packet, now, None) }
    }

    /// The frame, from its destination address on.
    #[must_use]
    pub(crate) fn ethernet(&self) -> &[u8] {
        &self.bytes
    }

    /// The same as a view that shares what was found out about it.
    #[must_use]
    pub(crate) fn frame(&self) -> Option<dormouse_wire::Frame<'_>> {
        dormouse_wire::Frame::cached(&self.bytes, &self.cache)
    }

    /// When it came.
    #[must_use]
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Is it for a group?
    #[must_use]
    pub(crate) fn is_group(&self) -> bool {
        self.bytes.first().is_some_and(|octet| octet & 1 != 0)
    }

    /// To be held: all who hold it share one copy.
    #[must_use]
    pub(crate) fn packet(&self) -> Packet {
        let copy = || Packet { header: self.header, bytes: self.bytes.as_ref().into() };
        self.packet.get_or_init(copy).clone()
    }

    /// Is its source a scanner? Takes note of a frame that just came, once, whoever asks.
    pub(crate) fn is_from_scanner(&self, frame: &dormouse_wire::Frame<'_>) -> bool {
        let note = |scanners: &RefCell<Scanners>| match self.again {
            false => scanners.borrow_mut().note(frame, self.now),
            true => scanners.borrow().knows(frame, self.now),
        };
        *self.from_scanner.get_or_init(|| self.scanners.is_some_and(note))
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} to {})", self.bytes.len(), self.destination())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_sys::VlanTag;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame {
            header: VnetHdr::PLAIN,
            bytes,
            vlan: None,
            outgoing: false,
            truncated: false,
            mark: 0,
            length: bytes.len(),
        }
    }

    #[test]
    fn a_runt_or_a_part_is_no_packet() {
        assert_eq!(Packet::received(&frame(&[0; ETHERNET - 1])), None);
        assert_eq!(Packet::received(&Frame { truncated: true, ..frame(&[0; 60]) }), None);
    }

    #[test]
    fn a_tag_is_put_back() {
        let bytes: Vec<u8> = (0..60).collect();
        let vlan = Some(VlanTag { protocol: 0x8100, control: 5 });
        let packet = Packet::received(&Frame { vlan, ..frame(&bytes) }).unwrap();
        assert_eq!(packet.ethernet()[12..16], [0x81, 0, 0, 5]);
        assert_eq!(packet.ethernet()[16..], bytes[12..]);
    }
}
