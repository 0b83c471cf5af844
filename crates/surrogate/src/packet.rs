//! A frame as a packet socket gives it: its offload header, and its octets.
//!
//! Local clients' frames come unsegmented and with partial checksums; only the header
//! (`struct virtio_net_hdr`, `PACKET_VNET_HDR` in packet(7)) says so. It must travel with the
//! frame, or the guest gets a wrong checksum.

use std::{fmt, sync::Arc};

use dormouse_sys::{Frame, VnetHdr};
use dormouse_types::MacAddr;

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;

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

    /// Octets that holding it costs.
    #[must_use]
    pub(crate) fn cost(&self) -> u64 {
        (VnetHdr::LEN + self.bytes.len()) as u64
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
        Frame { header: VnetHdr::PLAIN, bytes, vlan: None, outgoing: false, truncated: false, mark: 0 }
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
