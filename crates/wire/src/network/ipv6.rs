//! IPv6 headers and extension headers (RFC 8200).

use core::net::Ipv6Addr;

use smoltcp::wire::{IPV6_HEADER_LEN, Ipv6FragmentHeader, Ipv6Packet};

use super::{Fragment, IpPacket};

/// More extension headers than RFC 8200 §4.1 knows kinds of; what lies behind is not looked at.
const MAX_EXTENSIONS: usize = 12;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Reads a packet. A cut one is taken, with the payload that is there; `None` without a whole header.
pub(super) fn parse(bytes: &[u8]) -> Option<IpPacket<'_, Ipv6Addr>> {
    let header = Ipv6Packet::new_unchecked(bytes.first_chunk::<IPV6_HEADER_LEN>()?);
    if header.version() != 6 {
        return None;
    }
    let rest = bytes.get(IPV6_HEADER_LEN..)?;
    let declared = usize::from(header.payload_len());
    // Zero is said by a segment that is too long for the field (BIG TCP), or by one without payload.
    let len = if declared == 0 { rest.len() } else { declared.min(rest.len()) };
    let mut inner =
        Inner { protocol: header.next_header().into(), fragment: Fragment::Whole, payload: rest.get(..len)? };
    for _ in 0..MAX_EXTENSIONS {
        match inner.step() {
            Some(further) => inner = further,
            None => break,
        }
    }
    Some(IpPacket {
        src: header.src_addr(),
        dst: header.dst_addr(),
        traffic_class: header.traffic_class(),
        hop_limit: header.hop_limit(),
        protocol: inner.protocol,
        fragment: inner.fragment,
        plain: inner.payload.len() == len,
        complete: declared != 0 && declared <= rest.len(),
        payload: inner.payload,
        payload_len: declared.max(len) - (len - inner.payload.len()),
    })
}

/// What is left behind the extension headers seen so far.
struct Inner<'a> {
    protocol: u8,
    fragment: Fragment,
    payload: &'a [u8],
}

impl Inner<'_> {
    /// Behind one more extension header; `None` if there is none, or it is cut.
    fn step(&self) -> Option<Self> {
        let [next, length, ..] = *self.payload else { return None };
        let mut fragment = self.fragment;
        let len = match self.protocol {
            _ if fragment == Fragment::Later => return None,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                8 * (usize::from(length) + 1)
            }
            AUTHENTICATION => 4 * (usize::from(length) + 2),
            // A second one in a packet is not legal.
            FRAGMENT if fragment == Fragment::Whole => {
                let header = Ipv6FragmentHeader::new_checked(self.payload.get(2..)?).ok()?;
                fragment = Fragment::new(header.frag_offset(), header.more_frags());
                8
            }
            _ => return None,
        };
        Some(Self { protocol: next, fragment, payload: self.payload.get(len..)? })
    }
}
