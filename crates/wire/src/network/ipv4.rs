//! IPv4 headers (RFC 791).

use core::net::Ipv4Addr;

use smoltcp::wire::{IPV4_HEADER_LEN, Ipv4Packet};

use super::{Fragment, IpPacket};

/// Reads a packet. A cut one is taken, with the payload that is there; `None` without a whole header.
pub(super) fn parse(bytes: &[u8]) -> Option<IpPacket<'_, Ipv4Addr>> {
    // smoltcp's own check refuses packets that are cut or whose length is left to segmentation offload.
    let header = Ipv4Packet::new_unchecked(bytes.first_chunk::<IPV4_HEADER_LEN>()?);
    let header_len = usize::from(header.header_len());
    let total_len = usize::from(header.total_len());
    if header.version() != 4 || header_len < IPV4_HEADER_LEN || (total_len != 0 && total_len < header_len) {
        return None;
    }
    let declared = if total_len == 0 { bytes.len() } else { total_len };
    let end = declared.min(bytes.len());
    Some(IpPacket {
        src: header.src_addr(),
        dst: header.dst_addr(),
        traffic_class: header.dscp() << 2 | header.ecn(),
        hop_limit: header.hop_limit(),
        protocol: header.next_header().into(),
        fragment: Fragment::new(header.frag_offset(), header.more_frags()),
        plain: header_len == IPV4_HEADER_LEN,
        complete: total_len != 0 && total_len <= bytes.len(),
        payload: bytes.get(header_len..end)?,
        payload_len: declared.saturating_sub(header_len),
    })
}
