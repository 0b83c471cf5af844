//! Is a TCP connection still there (RFC 9293 §3.8.4)?

use alloc::vec::Vec;
use core::{net::SocketAddr, time::Duration};

use smoltcp::wire::{IpAddress, TcpOption, TcpPacket, TcpSeqNumber};

use super::{Context, Responder, Response, build};
use crate::{
    frame::Frame,
    network::{Network, protocol},
    persona::Flow,
    tcp::Segment,
};

/// How long after the machine's last segment its acknowledgment may come: the other side may wait for half
/// a second (RFC 1122 §4.2.3.2), and it has a way to go.
const TRAILING: Duration = Duration::from_secs(2);

/// Answers the keepalive probes that come for the sleeper's TCP connections (RFC 9293 §3.8.4, RFC
/// 1122 §4.2.3.6).
///
/// - A probe has the sequence number before the one that the machine expects next, no data or one
///   octet of it, of the flags ACK alone (PSH with the octet: some stacks send it as data; the
///   bits of ECN are not looked at), and acknowledges all that the machine has sent. Probes of a closed
///   window (RFC 9293 §3.8.6.1) look the same in most stacks, and are answered the same.
/// - The answer has the numbers, the window and the timestamp that the machine sent last. Not a
///   later timestamp: the machine would go on from its own, and the other side would drop its
///   segments as old ones (PAWS, RFC 7323 §5).
/// - A bare ACK of all that the machine has sent, a moment after it sent it, is the acknowledgment that it
///   is owed: held, for it does not want the machine. A later one brings something new, as that
///   the other side has room again, which it says once (RFC 9293 §3.8.6.2.2): it is passed on.
/// - All else is passed on: data, SYN, FIN, RST, URG; an acknowledgment of less than all, probes
///   among them, by which the other side lacks something that the machine is to send again, or of what was
///   never sent; and what is authenticated (TCP-MD5, TCP-AO), for the answer could not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalive;

impl Responder for Keepalive {
    fn name(&self) -> &'static str {
        "tcp-keepalive"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let who = context.who;
        let flows = &context.persona.flows;
        if flows.is_empty() || !who.is_addressed_by(frame) || !is_plain(frame) {
            return Response::Pass;
        }
        let Some(segment) = Segment::of(frame, 0) else { return Response::Pass };
        let Some(ack) = bare_ack(&segment) else { return Response::Pass };
        let of_segment = |flow: &&Flow| same(flow.remote, segment.src) && same(flow.local, segment.dst);
        let Some(flow) = flows.iter().find(of_segment) else { return Response::Pass };
        // RFC 7323 §3.2: a segment without the option that was agreed upon is dropped.
        let agreed = flow.tsval.is_none() || segment.tsval.is_some();
        if !(who.has(flow.local.ip()) && agreed && ack == flow.snd_nxt) || segment.signed {
            return Response::Pass;
        }
        let now = context.now;
        if segment.seq.wrapping_add(1) == flow.rcv_nxt {
            Response::reply_or_pass(answer(frame, flow, &segment))
        } else if segment.seq == flow.rcv_nxt && segment.len == 0 && now.since(flow.heard) < TRAILING {
            Response::Hold
        } else {
            Response::Pass
        }
    }
}

/// Is it one whole IP packet without options, whose sender can be answered?
fn is_plain(frame: &Frame<'_>) -> bool {
    match frame.network() {
        Network::Ipv4(ip) => ip.plain && ip.complete,
        Network::Ipv6(ip) => ip.plain && ip.complete,
        Network::Arp(_) | Network::Other(_) => false,
    }
}

/// What a segment acknowledges that does nothing else, but for an octet of a probe.
fn bare_ack(segment: &Segment) -> Option<u32> {
    let other_flags = segment.syn || segment.fin || segment.rst || segment.urg;
    let pushed_nothing = segment.psh && segment.len == 0;
    segment.ack.filter(|_| !other_flags && !pushed_nothing && segment.len <= 1)
}

/// The same address and port; a flow label or a scope makes no difference.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip() == other.ip()
}

/// Octets of a header without options, and of the timestamps option behind two of padding
/// (RFC 7323, Appendix A).
const HEADER: usize = 20;
const TIMESTAMPS: usize = 12;

fn answer(frame: &Frame<'_>, flow: &Flow, probe: &Segment) -> Option<Vec<u8>> {
    let timestamps = flow.tsval.zip(probe.tsval);
    let len = if timestamps.is_some() { HEADER + TIMESTAMPS } else { HEADER };
    let fill = |bytes: &mut [u8], src: IpAddress, dst: IpAddress| {
        let mut tcp = TcpPacket::new_unchecked(bytes);
        tcp.set_src_port(flow.local.port());
        tcp.set_dst_port(flow.remote.port());
        tcp.set_seq_number(TcpSeqNumber(flow.snd_nxt.cast_signed()));
        tcp.set_ack_number(TcpSeqNumber(flow.rcv_nxt.cast_signed()));
        // At most 32.
        tcp.set_header_len(u8::try_from(len).unwrap_or_default());
        tcp.set_ack(true);
        tcp.set_window_len(flow.window);
        if let Some((tsval, tsecr)) = timestamps {
            let options = tcp.options_mut();
            let options = TcpOption::NoOperation.emit(options);
            let options = TcpOption::NoOperation.emit(options);
            TcpOption::TimeStamp { tsval, tsecr }.emit(options);
        }
        tcp.fill_checksum(&src, &dst);
    };
    build::answer(frame, protocol::TCP, len, fill)
}
