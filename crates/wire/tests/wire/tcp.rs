//! Keepalive probes, and following connections.

use std::net::{IpAddr, SocketAddr};

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Context, Flow, FlowTable, Frame, Keepalive, Memory, Persona, Responder, Response};
use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, TcpOption, TcpPacket, TcpSeqNumber};

use crate::{
    MAC_1, MAC_2,
    build::{checksum_is_full, ip_frame, tag, tagged},
    host_2, ip,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// A segment without addresses.
#[derive(Clone, Copy, Debug)]
struct Tcp {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    /// TSval and TSecr.
    timestamps: Option<(u32, u32)>,
    len: usize,
}

impl Tcp {
    fn bytes(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let header = if self.timestamps.is_some() { 32 } else { 20 };
        let mut bytes = vec![0; header + self.len];
        let mut tcp = TcpPacket::new_unchecked(&mut bytes);
        tcp.set_src_port(from.port());
        tcp.set_dst_port(to.port());
        tcp.set_seq_number(TcpSeqNumber(self.seq.cast_signed()));
        tcp.set_ack_number(TcpSeqNumber(self.ack.cast_signed()));
        tcp.set_header_len(u8::try_from(header).unwrap());
        tcp.set_window_len(self.window);
        if let Some((tsval, tsecr)) = self.timestamps {
            let options = tcp.options_mut();
            options[..2].fill(1);
            TcpOption::TimeStamp { tsval, tsecr }.emit(&mut options[2..]);
        }
        bytes[13] = self.flags;
        bytes
    }

    fn frame(&self, macs: (MacAddr, MacAddr), from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        ip_frame(macs, from.ip(), to.ip(), 6, &self.bytes(from, to))
    }
}

fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// A connection of host 2 with host 1.
fn flow(tsval: Option<u32>) -> Flow {
    Flow {
        local: end("10.9.0.2", 22),
        remote: end("10.9.0.1", 40000),
        snd_nxt: 7000,
        rcv_nxt: 9000,
        window: 501,
        tsval,
        heard: Timestamp(5),
    }
}

/// A probe as Linux sends it: no data, the timestamps of the connection.
fn probe(flow: &Flow) -> Tcp {
    Tcp {
        seq: flow.rcv_nxt.wrapping_sub(1),
        ack: flow.snd_nxt,
        flags: ACK,
        window: 229,
        timestamps: flow.tsval.map(|tsval| (123_456, tsval)),
        len: 0,
    }
}

fn respond(bytes: &[u8], flow: &Flow) -> Response {
    respond_at(bytes, flow, Timestamp(9))
}

fn respond_at(bytes: &[u8], flow: &Flow, now: Timestamp) -> Response {
    let who = host_2();
    let persona = Persona { flows: vec![*flow], ..Persona::default() };
    let memory = &mut Memory::default();
    let mut context = Context { who: &who, persona: &persona, now, memory };
    Keepalive.respond(&Frame::new(bytes).unwrap(), &mut context)
}

fn ask(tcp: &Tcp, flow: &Flow) -> Response {
    respond(&tcp.frame((MAC_1, MAC_2), flow.remote, flow.local), flow)
}

/// Checks an answer to a probe, field by field.
fn assert_answers(response: Response, flow: &Flow, probe: &Tcp) {
    let Response::Reply(bytes) = response else { panic!("{response:?}") };
    let reply = Frame::new(&bytes).unwrap();
    assert_eq!((reply.src(), reply.dst()), (MAC_2, MAC_1));
    let header = if flow.local.is_ipv4() { 20 } else { 40 };
    let segment = &reply.payload()[header..];
    let tcp = TcpPacket::new_checked(segment).unwrap();
    assert_eq!((tcp.src_port(), tcp.dst_port()), (flow.local.port(), flow.remote.port()));
    assert_eq!(tcp.seq_number().0.cast_unsigned(), flow.snd_nxt);
    assert_eq!(tcp.ack_number().0.cast_unsigned(), flow.rcv_nxt);
    assert_eq!((segment[13], tcp.window_len(), tcp.payload().len()), (ACK, flow.window, 0));
    match flow.tsval.zip(probe.timestamps) {
        Some((own, (tsval, _))) => {
            let wanted = [&[1, 1, 8, 10][..], &own.to_be_bytes(), &tsval.to_be_bytes()].concat();
            assert_eq!(tcp.options(), wanted);
        }
        None => assert!(tcp.options().is_empty()),
    }
    assert!(checksum_is_full(6, segment, flow.local.ip().into(), flow.remote.ip().into()));
    if flow.local.is_ipv4() {
        let packet = Ipv4Packet::new_checked(reply.payload()).unwrap();
        assert!(packet.verify_checksum() && usize::from(packet.total_len()) == reply.payload().len());
        assert_eq!(IpAddr::from(packet.src_addr()), flow.local.ip());
    }
}

#[test]
fn answers_probes_with_and_without_octet_and_timestamps() {
    for flow in [flow(None), flow(Some(77))] {
        for (len, flags) in [(0, ACK), (1, ACK), (1, ACK | PSH), (0, ACK | 0xc0)] {
            let tcp = Tcp { len, flags, ..probe(&flow) };
            assert_answers(ask(&tcp, &flow), &flow, &tcp);
        }
    }
}

#[test]
fn answers_probes_over_ipv6() {
    let flow = Flow { local: end("fd77::2", 22), remote: end("fd77::1", 40000), ..flow(Some(1)) };
    assert_answers(ask(&probe(&flow), &flow), &flow, &probe(&flow));
}

#[test]
fn keeps_the_vlan() {
    let flow = flow(Some(1));
    let bytes = tagged(&probe(&flow).frame((MAC_1, MAC_2), flow.remote, flow.local), &tag(9));
    let Response::Reply(reply) = respond(&bytes, &flow) else { panic!() };
    assert_eq!(Frame::new(&reply).unwrap().vlan(), Some(9));
}

/// The machine would send it again; whoever answered would vouch for a connection that stands still.
#[test]
fn a_probe_that_lacks_data_of_the_machine_is_passed_on() {
    let flow = flow(Some(1));
    assert_eq!(ask(&Tcp { ack: flow.snd_nxt - 1000, ..probe(&flow) }, &flow), Response::Pass);
}

#[test]
fn a_bare_ack_is_held_a_moment_after_what_it_acknowledges_and_news_later() {
    let heard = Timestamp(5);
    let flow = Flow { heard, ..flow(Some(1)) };
    let ack = Tcp { seq: flow.rcv_nxt, ..probe(&flow) };
    let at = |tcp: &Tcp, millis| {
        let bytes = tcp.frame((MAC_1, MAC_2), flow.remote, flow.local);
        respond_at(&bytes, &flow, heard + std::time::Duration::from_millis(millis))
    };
    assert_eq!(at(&ack, 0), Response::Hold);
    assert_eq!(at(&ack, 1_999), Response::Hold);
    // A window update (RFC 9293 §3.8.6.2.2) is said once.
    assert_eq!(at(&Tcp { window: 0xffff, ..ack }, 2_000), Response::Pass);
    assert_eq!(at(&Tcp { ack: flow.snd_nxt - 1, ..ack }, 0), Response::Pass);
    assert_eq!(at(&Tcp { len: 1, ..ack }, 0), Response::Pass);
}

/// An answer without the option would be dropped (RFC 2385 §2.0, RFC 5925 §7.5).
#[test]
fn an_authenticated_probe_is_passed_on() {
    let flow = flow(None);
    for (kind, len) in [(19, 18), (29, 16)] {
        let mut segment = probe(&flow).bytes(flow.remote, flow.local);
        segment.extend([1, 1, kind, len]);
        segment.resize(40, 0);
        segment[12] = 10 << 4;
        let bytes = ip_frame((MAC_1, MAC_2), flow.remote.ip(), flow.local.ip(), 6, &segment);
        assert_eq!(respond(&bytes, &flow), Response::Pass, "{kind}");
    }
}

#[test]
fn passes_on_what_is_no_probe() {
    let flow = flow(Some(1));
    let right = probe(&flow);
    let wrong = [
        Tcp { seq: flow.rcv_nxt, len: 1, ..right },
        Tcp { seq: flow.rcv_nxt - 2, ..right },
        Tcp { seq: flow.rcv_nxt + 1, ..right },
        Tcp { len: 2, ..right },
        Tcp { ack: flow.snd_nxt + 1, ..right },
        Tcp { timestamps: None, ..right },
        Tcp { flags: 0, ..right },
        Tcp { flags: ACK | PSH, ..right },
        Tcp { flags: ACK | FIN, ..right },
        Tcp { flags: ACK | RST, ..right },
        Tcp { flags: RST, ..right },
        Tcp { flags: SYN, ..right },
        Tcp { flags: ACK | SYN, ..right },
        Tcp { flags: ACK | URG, ..right },
    ];
    for tcp in wrong {
        assert_eq!(ask(&tcp, &flow), Response::Pass, "{tcp:?}");
    }
    let others = [(end("10.9.0.1", 40001), flow.local), (flow.remote, end("10.9.0.2", 23))];
    for (from, to) in others {
        assert_eq!(respond(&right.frame((MAC_1, MAC_2), from, to), &flow), Response::Pass);
    }
    let (from, to) = (flow.remote, flow.local);
    assert_eq!(respond(&right.frame((MAC_1, MacAddr::BROADCAST), from, to), &flow), Response::Pass);
    assert_eq!(respond(&right.frame((MAC_2, MAC_2), from, to), &flow), Response::Pass);
    let lost_address = Flow { local: end("10.9.0.9", 22), ..flow };
    assert_eq!(ask(&right, &lost_address), Response::Pass);
}

proptest! {
    #[test]
    fn answers_at_any_place_in_the_numbers(snd_nxt: u32, rcv_nxt: u32, window: u16,
                                           tsval: Option<u32>, behind in 1u32..1 << 30, len in 0usize..2) {
        let flow = Flow { snd_nxt, rcv_nxt, window, ..flow(tsval) };
        let tcp = Tcp { len, ..probe(&flow) };
        assert_answers(ask(&tcp, &flow), &flow, &tcp);
        let lacks = Tcp { ack: snd_nxt.wrapping_sub(behind), ..tcp };
        prop_assert_eq!(ask(&lacks, &flow), Response::Pass);
    }
}

/// One thing that a machine does on one of its connections.
#[derive(Clone, Debug)]
enum Step {
    /// Sends so many octets, none but an ACK if zero.
    Send(usize),
    /// Sends once more what it sent last, or a part further back; its ACK and time are of now.
    Again {
        back: usize,
        len: usize,
    },
    /// An old frame overtaken by newer ones: numbers of some steps ago.
    Late(prop::sample::Index),
    /// A keepalive probe of its own.
    Probe,
    /// The other side's data were acknowledged so far.
    Got(u32),
    /// Time goes on.
    Tick(u32),
    Close,
    Reset,
    Open,
    PeerCloses,
    PeerResets,
    /// A RST that does not fit.
    Forged,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![Just(0), 1..1500_usize, 60_000..65_000_usize].prop_map(Step::Send),
        3 => (0..3000_usize, 0..1500_usize).prop_map(|(back, len)| Step::Again { back, len }),
        2 => any::<prop::sample::Index>().prop_map(Step::Late),
        1 => Just(Step::Probe),
        4 => (1..1_000_000_u32).prop_map(Step::Got),
        4 => (1..100_000_u32).prop_map(Step::Tick),
        1 => Just(Step::Close),
        1 => Just(Step::Reset),
        1 => Just(Step::Open),
        1 => Just(Step::PeerCloses),
        1 => Just(Step::PeerResets),
        1 => Just(Step::Forged),
    ]
}

/// A segment of the machine's with its numbers as they are before they are cut to 32 bits.
#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u64,
    len: usize,
    ack: u64,
    time: u64,
    flags: u8,
    window: u16,
}

/// A connection as somebody sees it who counts without end.
#[derive(Clone, Debug)]
struct Model {
    /// Where the machine is.
    next: Sent,
    stamped: bool,
    frames: Vec<Sent>,
    /// The highest numbers shown: the end of data, the ACK with its window, and the time.
    shown: Option<(u64, (u64, u16), u64, Timestamp)>,
    closing: bool,
}

/// The low 32 bits.
fn wrap(number: u64) -> u32 {
    u32::try_from(number & 0xffff_ffff).unwrap()
}

impl Model {
    fn new(start: (u32, u32, u32, bool)) -> Self {
        let [seq, ack, time] = [start.0, start.1, start.2].map(|low| (1 << 40) + u64::from(low));
        let next = Sent { seq, len: 0, ack, time, flags: ACK, window: 0 };
        Self { next, stamped: start.3, frames: Vec::new(), shown: None, closing: false }
    }

    /// What the machine sends in this step, if it does.
    fn send(&mut self, step: &Step, window: u16) -> Option<Sent> {
        let now = Sent { window, ..self.next };
        Some(match step {
            Step::Send(len) => {
                self.next.seq += *len as u64;
                Sent { len: *len, ..now }
            }
            Step::Again { back, len } => Sent { seq: now.seq - *back as u64, len: *len.min(back), ..now },
            Step::Late(index) if !self.frames.is_empty() => *index.get(&self.frames),
            Step::Probe => Sent { seq: now.seq - 1, ..now },
            Step::Close => Sent { flags: ACK | FIN, ..now },
            Step::Reset => Sent { flags: ACK | RST, ..now },
            Step::Open => Sent { flags: SYN, ..now },
            _ => return None,
        })
    }

    fn note(&mut self, sent: Sent, at: Timestamp) {
        if sent.flags & (SYN | RST) != 0 {
            self.forget();
            return;
        }
        self.frames.push(sent);
        let (end, ack) = (sent.seq + sent.len as u64, (sent.ack, sent.window));
        self.shown = Some(match self.shown {
            None => (end, ack, sent.time, at),
            Some((before, known, time, _)) => {
                let ack = if ack.0 >= known.0 { ack } else { known };
                (before.max(end), ack, time.max(sent.time), at)
            }
        });
        self.closing |= sent.flags & FIN != 0;
    }

    fn forget(&mut self) {
        (self.shown, self.closing) = (None, false);
        self.frames.clear();
    }

    fn expected(&self, (local, remote): (SocketAddr, SocketAddr)) -> Option<Flow> {
        let (end, (ack, window), time, heard) = self.shown.filter(|_| !self.closing)?;
        let tsval = self.stamped.then(|| wrap(time));
        Some(Flow { local, remote, snd_nxt: wrap(end), rcv_nxt: wrap(ack), window, tsval, heard })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Random conversations, their numbers wrapping around, against counters that do not wrap.
    #[test]
    fn connections_are_followed(
        starts in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>()), 3),
        steps in prop::collection::vec((0..3_u16, step(), any::<u16>(), any::<bool>()), 1..120),
    ) {
        let mut table = FlowTable::default();
        let mut models: Vec<_> = starts.into_iter().map(Model::new).collect();
        let ends = |which: u16| (end("10.9.0.2", 22), end("10.9.0.1", 40000 + which));
        for (now, (which, step, window, cut)) in (0..).map(Timestamp).zip(steps) {
            let model = &mut models[usize::from(which)];
            let (local, remote) = ends(which);
            if let Some(sent) = model.send(&step, window) {
                let tcp = Tcp {
                    seq: wrap(sent.seq),
                    ack: wrap(sent.ack),
                    flags: sent.flags,
                    window: sent.window,
                    timestamps: model.stamped.then_some((wrap(sent.time), 1)),
                    len: sent.len,
                };
                let bytes = tcp.frame((MAC_2, MAC_1), local, remote);
                // Cut as a capture of headers is.
                let captured = if cut { bytes.len().min(128) } else { bytes.len() };
                table.note(&Frame::new(&bytes[..captured]).unwrap(), bytes.len(), MAC_2, now);
                model.note(sent, now);
            }
            let peers = match step {
                Step::Tick(by) => { model.next.time += u64::from(by); None }
                Step::Got(by) => { model.next.ack += u64::from(by); None }
                Step::PeerCloses => Some((ACK | FIN, 0)),
                Step::PeerResets => Some((RST, 0)),
                Step::Forged => Some((RST, 1 << 31)),
                _ => None,
            };
            if let Some((flags, off)) = peers {
                let seq = wrap(model.next.ack + off);
                let tcp = Tcp { seq, ack: 0, flags, window, timestamps: None, len: 0 };
                let bytes = tcp.frame((MAC_1, MAC_2), remote, local);
                table.note(&Frame::new(&bytes).unwrap(), bytes.len(), MAC_2, now);
                match step {
                    Step::PeerCloses => model.closing |= model.shown.is_some(),
                    Step::PeerResets => model.forget(),
                    _ => {}
                }
            }
            let each = (0..).zip(&models);
            let mut expected: Vec<_> = each.filter_map(|(which, model)| model.expected(ends(which))).collect();
            expected.sort_by_key(|flow| std::cmp::Reverse(flow.heard));
            prop_assert_eq!(table.established(), expected);
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_was_heard_last(connections in 1..700_u16) {
        let mut table = FlowTable::default();
        let local = end("10.9.0.2", 22);
        for port in 1..=connections {
            let flags = if port % 7 == 0 { ACK | FIN } else { ACK };
            let tcp = Tcp { flags, ..probe(&flow(None)) };
            let bytes = tcp.frame((MAC_2, MAC_1), local, end("10.9.0.1", port));
            table.note(&Frame::new(&bytes).unwrap(), bytes.len(), MAC_2, Timestamp(u64::from(port)));
        }
        let flows = table.established();
        prop_assert!(flows.len() <= Persona::MAX_FLOWS);
        let ports: Vec<_> = flows.iter().map(|flow| flow.remote.port()).collect();
        let newest = (1..=connections).rev().filter(|port| port % 7 != 0);
        prop_assert_eq!(&ports, &newest.take(ports.len()).collect::<Vec<_>>());
        prop_assert!(ports.len() >= usize::from(connections - connections / 7).min(Persona::MAX_FLOWS - 1));
    }
}
