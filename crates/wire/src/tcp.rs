//! TCP segments (RFC 9293), as far as following connections and answering their probes needs them.

use core::net::{IpAddr, SocketAddr};

use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};

use crate::{
    frame::Frame,
    network::{Fragment, IpPacket, Network, protocol},
};

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) seq: u32,
    /// The acknowledgment number, if the flag says that it means something.
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) psh: bool,
    pub(crate) urg: bool,
    pub(crate) window: u16,
    /// TSval of the timestamps option (RFC 7323 §3.2).
    pub(crate) tsval: Option<u32>,
    /// It bears an option that authenticates it: TCP-MD5 (RFC 2385), TCP-AO (RFC 5925).
    pub(crate) signed: bool,
    /// Octets of data.
    pub(crate) len: usize,
}

impl Segment {
    /// The segment in `frame`; `None` if there is none, or not all of its header. `missing` octets
    /// at the frame's end were not captured.
    pub(crate) fn of(frame: &Frame<'_>, missing: usize) -> Option<Self> {
        match frame.network() {
            Network::Ipv4(ip) => Self::parse(&ip, missing),
            Network::Ipv6(ip) => Self::parse(&ip, missing),
            Network::Arp(_) | Network::Other(_) => None,
        }
    }

    fn parse<A: Copy + Into<IpAddr>>(ip: &IpPacket<'_, A>, missing: usize) -> Option<Self> {
        if ip.protocol != protocol::TCP || ip.fragment != Fragment::Whole {
            return None;
        }
        let tcp = TcpPacket::new_checked(ip.payload).ok()?;
        // What is there, where the IP header leaves its length open.
        let open = ip.payload_len == ip.payload.len() && !ip.complete;
        let all = ip.payload_len + if open { missing } else { 0 };
        let (tsval, signed) = options(&tcp);
        Some(Self {
            src: SocketAddr::new(ip.src.into(), tcp.src_port()),
            dst: SocketAddr::new(ip.dst.into(), tcp.dst_port()),
            seq: u32_of(tcp.seq_number()),
            ack: tcp.ack().then(|| u32_of(tcp.ack_number())),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            psh: tcp.psh(),
            urg: tcp.urg(),
            window: tcp.window_len(),
            tsval,
            signed,
            len: all.saturating_sub(usize::from(tcp.header_len())),
        })
    }
}

/// Seen from `origin`, does `later` come after it or is it the same (RFC 9293 §3.4, modulo 2^32)?
pub(crate) const fn at_or_after(later: u32, origin: u32) -> bool {
    later.wrapping_sub(origin) < 1 << 31
}

/// TSval of the timestamps option, and whether there is one that authenticates.
fn options(tcp: &TcpPacket<&[u8]>) -> (Option<u32>, bool) {
    const MD5: u8 = 19;
    const AO: u8 = 29;

    let (mut tsval, mut signed, mut options) = (None, false, tcp.options());
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::TimeStamp { tsval: value, .. } => tsval = tsval.or(Some(value)),
            TcpOption::Unknown { kind: MD5 | AO, .. } => signed = true,
            TcpOption::EndOfList => break,
            _ => {}
        }
        options = rest;
    }
    (tsval, signed)
}

const fn u32_of(number: TcpSeqNumber) -> u32 {
    number.0.cast_unsigned()
}
