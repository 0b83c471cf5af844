//! A checked view of an Ethernet frame, with or without VLAN tags.

use alloc::borrow::Cow;
use core::{cell::OnceCell, fmt};

use dormouse_types::MacAddr;

use crate::{dns::Message, network::Network, udp::Datagram};

/// Numbers of the EtherType field (IEEE 802 Numbers, IANA) that are told apart here.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// Address resolution (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// Magic packet, as wake-on-LAN tools send it.
    pub const WAKE_ON_LAN: u16 = 0x0842;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (IEEE 802.1ad), outside a VLAN tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IEEE 802 local experimental EtherType 1.
    pub const EXPERIMENTAL_1: u16 = 0x88b5;
}

/// An Ethernet frame without preamble and check sequence: at least a whole header, and up to two
/// VLAN tags in it.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    dst: MacAddr,
    src: MacAddr,
    ethertype: u16,
    /// Where the tags end and the EtherType stands.
    tags_end: usize,
    /// Parsed once: every frame is looked at by many.
    network: Network<'a>,
    cache: Option<&'a Cache>,
}

/// What is found out about one frame when somebody first wants to know it, however many look at it.
#[derive(Debug, Default)]
pub struct Cache {
    dns: OnceCell<Option<Message>>,
}

/// Octets of the two addresses.
const ADDRESSES: usize = 12;
/// A service tag and a customer tag: as many as IEEE 802.1Q bridges put in a frame.
const MAX_TAGS: usize = 2;

impl<'a> Frame<'a> {
    /// A view of `bytes`, which allocates nothing; `None` if they end within the Ethernet header or a VLAN tag.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Self::view(bytes, None)
    }

    /// The same, for a frame that many will look at; `cache` is of this frame and no other.
    #[must_use]
    pub fn cached(bytes: &'a [u8], cache: &'a Cache) -> Option<Self> {
        Self::view(bytes, Some(cache))
    }

    fn view(bytes: &'a [u8], cache: Option<&'a Cache>) -> Option<Self> {
        let dst = MacAddr::from_slice(bytes)?;
        let src = MacAddr::from_slice(bytes.get(6..)?)?;
        let mut tags_end = ADDRESSES;
        let mut ethertype = u16_at(bytes, tags_end)?;
        for _ in 0..MAX_TAGS {
            if !matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) {
                break;
            }
            tags_end += 4;
            ethertype = u16_at(bytes, tags_end)?;
        }
        let network = Network::parse(ethertype, bytes.get(tags_end + 2..)?);
        Some(Self { bytes, dst, src, ethertype, tags_end, network, cache })
    }

    /// All bytes, as given.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The destination address.
    #[must_use]
    pub const fn dst(&self) -> MacAddr {
        self.dst
    }

    /// The source address.
    #[must_use]
    pub const fn src(&self) -> MacAddr {
        self.src
    }

    /// Is it addressed to a group (multicast or broadcast)?
    #[must_use]
    pub const fn is_group(&self) -> bool {
        self.dst.is_multicast()
    }

    /// The VLAN identifier (0 to 4095) of the outermost tag; 0 is a tag that only says a priority.
    #[must_use]
    pub fn vlan(&self) -> Option<u16> {
        self.tags().get(2..4).map(|tci| u16::from_be_bytes([tci[0], tci[1]]) & 0x0fff)
    }

    /// The VLAN tags as they stand in the frame, four octets each; empty if there are none.
    #[must_use]
    pub fn tags(&self) -> &'a [u8] {
        self.bytes.get(ADDRESSES..self.tags_end).unwrap_or_default()
    }

    /// The EtherType after the tags; below 0x0600 it is the length of an IEEE 802.2 frame.
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// What follows the EtherType, padding included.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.tags_end + 2..).unwrap_or_default()
    }

    /// What the payload is, one layer further.
    #[must_use]
    pub const fn network(&self) -> Network<'a> {
        self.network
    }

    /// The message in the format of DNS that it carries by UDP, if that makes sense.
    pub(crate) fn dns(&self) -> Option<Cow<'a, Message>> {
        let parse = || Datagram::parse(self).and_then(|datagram| Message::parse(datagram.data));
        match self.cache {
            Some(cache) => cache.dns.get_or_init(parse).as_ref().map(Cow::Borrowed),
            None => parse().map(Cow::Owned),
        }
    }
}

impl PartialEq for Frame<'_> {
    fn eq(&self, other: &Self) -> bool {
        // All else follows from them.
        self.bytes == other.bytes
    }
}

impl Eq for Frame<'_> {}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({})", crate::summary(self.bytes))
    }
}

/// The big-endian number at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
    const SRC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    fn bytes(rest: &[u8]) -> alloc::vec::Vec<u8> {
        [&DST[..], &SRC, rest].concat()
    }

    #[test]
    fn sees_a_frame_without_tag() {
        let bytes = bytes(&[0x88, 0xb5, 1, 2, 3]);
        let frame = Frame::new(&bytes).unwrap();
        assert_eq!((frame.dst(), frame.src()), (MacAddr(DST), MacAddr(SRC)));
        assert_eq!((frame.ethertype(), frame.vlan(), frame.tags()), (0x88b5, None, &[][..]));
        assert_eq!(frame.payload(), [1, 2, 3]);
        assert!(!frame.is_group());
        assert_eq!(frame.network(), Network::Other(0x88b5));
    }

    #[test]
    fn sees_behind_tags() {
        let one = bytes(&[0x81, 0, 0x70, 5, 0x08, 0x00, 9]);
        let frame = Frame::new(&one).unwrap();
        assert_eq!((frame.ethertype(), frame.vlan(), frame.payload()), (0x0800, Some(5), &[9][..]));
        let two = bytes(&[0x88, 0xa8, 0x0f, 0xff, 0x81, 0, 0, 7, 0x08, 0x06]);
        let frame = Frame::new(&two).unwrap();
        assert_eq!((frame.ethertype(), frame.vlan(), frame.payload()), (0x0806, Some(0xfff), &[][..]));
        assert_eq!(frame.tags(), [0x88, 0xa8, 0x0f, 0xff, 0x81, 0, 0, 7]);
    }

    #[test]
    fn a_third_tag_is_payload() {
        let bytes = bytes(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
        let frame = Frame::new(&bytes).unwrap();
        assert_eq!((frame.ethertype(), frame.payload()), (0x8100, &[0, 3, 8, 0][..]));
    }

    #[test]
    fn refuses_what_ends_within_its_header() {
        for rest in [&[][..], &[8], &[0x81, 0], &[0x81, 0, 0, 1, 8], &[0x81, 0, 0, 1, 0x81, 0, 0, 2]] {
            assert_eq!(Frame::new(&bytes(rest)), None, "{rest:x?}");
        }
        assert_eq!(Frame::new(&[]), None);
    }
}
