//! What the kernel tells about a frame besides its bytes.

/// `struct virtio_net_hdr`, 10 bytes (VIRTIO 1.2, section 5.1.6; host byte order, as the kernel
/// hands it to packet sockets): segmentation and checksum that are still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VnetHdr(pub [u8; 10]);

impl VnetHdr {
    /// Its length in bytes.
    pub const LEN: usize = 10;

    /// A frame with nothing left to do: complete checksums, no segmentation.
    pub const PLAIN: Self = Self([0; 10]);

    /// Must the receiver of the frame complete a checksum (`VIRTIO_NET_HDR_F_NEEDS_CSUM`)?
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Is the frame still to be cut into segments of [`VnetHdr::segment_size`]?
    #[must_use]
    pub const fn is_gso(&self) -> bool {
        self.0[1] & 0x7f != 0
    }

    /// Bytes of payload in each segment of a GSO frame.
    #[must_use]
    pub const fn segment_size(&self) -> u16 {
        self.word(4)
    }

    /// Offset in the frame from which a partial checksum is computed.
    #[must_use]
    pub const fn checksum_start(&self) -> u16 {
        self.word(6)
    }

    /// Offset from [`VnetHdr::checksum_start`] at which the checksum belongs.
    #[must_use]
    pub const fn checksum_offset(&self) -> u16 {
        self.word(8)
    }

    /// The same header for a frame that grew by `bytes` before its network header. `None` if
    /// that does not fit: no real frame is so long.
    #[must_use]
    pub fn shifted(self, bytes: u16) -> Option<Self> {
        let mut shifted = self;
        if self.is_gso() {
            shifted.set_word(2, self.word(2).checked_add(bytes)?);
        }
        if self.needs_checksum() {
            shifted.set_word(6, self.checksum_start().checked_add(bytes)?);
        }
        Some(shifted)
    }

    const fn word(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]])
    }

    fn set_word(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
}

/// A VLAN tag (IEEE 802.1Q) that the kernel took out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// The tag's EtherType: 0x8100, or 0x88a8 for a service tag.
    pub protocol: u16,
    /// Priority (3 bits), drop eligibility (1), VLAN id (12).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN's number, 0 to 4095.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.control & 0x0fff
    }

    /// The tag as it stands in a frame after the source address.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.protocol.to_be_bytes(), self.control.to_be_bytes());
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_virtio_puts_them() {
        let mut raw = [0; 10];
        raw[0] = 1;
        raw[1] = 1;
        raw[2..4].copy_from_slice(&54u16.to_ne_bytes());
        raw[4..6].copy_from_slice(&1448u16.to_ne_bytes());
        raw[6..8].copy_from_slice(&34u16.to_ne_bytes());
        raw[8..10].copy_from_slice(&16u16.to_ne_bytes());
        let header = VnetHdr(raw);
        assert!(header.needs_checksum() && header.is_gso());
        assert_eq!(
            (header.segment_size(), header.checksum_start(), header.checksum_offset()),
            (1448, 34, 16)
        );
        let shifted = header.shifted(4).unwrap();
        assert_eq!((shifted.checksum_start(), shifted.checksum_offset()), (38, 16));
        assert_eq!(&shifted.0[2..4], &58u16.to_ne_bytes());
    }

    #[test]
    fn nothing_to_shift_in_a_plain_header() {
        assert_eq!(VnetHdr::PLAIN.shifted(4), Some(VnetHdr::PLAIN));
        let mut far = VnetHdr::PLAIN;
        far.0[0] = 1;
        far.0[6..8].copy_from_slice(&u16::MAX.to_ne_bytes());
        assert_eq!(far.shifted(4), None);
    }
}
