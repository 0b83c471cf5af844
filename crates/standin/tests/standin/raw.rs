//! A sleeper and single segments to it, made by hand.

use std::net::IpAddr;

use dormouse_standin::{Out, Settings, Standin};
use dormouse_types::{MacAddr, Service, ServiceKind, Timestamp};
use dormouse_wire::Frame;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
    },
};

pub(crate) const SLEEPER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
pub(crate) const CLIENT: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000_000_000);
pub(crate) const MTU: u16 = 1500;

pub(crate) fn address(v6: bool, host: u8) -> IpAddr {
    if v6 { format!("fd77::{host}").parse().unwrap() } else { format!("10.9.0.{host}").parse().unwrap() }
}

pub(crate) fn service(port: u16, kind: ServiceKind) -> Service {
    Service { port, kind, wakes: true }
}

pub(crate) fn standin(services: &[Service]) -> Standin {
    Standin::new(Settings {
        name: "web".parse().unwrap(),
        mac: SLEEPER,
        addresses: [address(false, 2), address(true, 2)].into(),
        services: services.into(),
        mtu: MTU,
        secret: *b"0123456789abcdef",
    })
}

/// A sleeper with a waking page.
pub(crate) fn web() -> Standin {
    standin(&[service(80, ServiceKind::WakingPage)])
}

pub(crate) fn take(standin: &mut Standin, frame: &[u8], now: Timestamp) -> Out {
    standin.take(&Frame::new(frame).unwrap(), now)
}

/// Lets time pass until nothing is due any more.
pub(crate) fn settle(standin: &mut Standin) -> Timestamp {
    let mut now = START;
    while let Some(at) = standin.deadline() {
        now = at;
        standin.due(now);
    }
    now
}

/// A client made of single segments.
pub(crate) struct Raw {
    pub(crate) source: [u8; 4],
    pub(crate) port: u16,
    pub(crate) seq: i32,
    pub(crate) ack: Option<i32>,
}

impl Raw {
    pub(crate) fn new(port: u16) -> Self {
        Self { source: [10, 9, 0, 1], port, seq: 1000, ack: None }
    }

    pub(crate) fn syn(&mut self, to: u16) -> Vec<u8> {
        let frame = self.segment(to, TcpControl::Syn, &[]);
        self.seq += 1;
        frame
    }

    pub(crate) fn data(&mut self, to: u16, payload: &[u8]) -> Vec<u8> {
        let frame = self.segment(to, TcpControl::Psh, payload);
        self.seq += i32::try_from(payload.len()).unwrap();
        frame
    }

    pub(crate) fn hear(&mut self, syn_ack: &[u8]) {
        let packet = Ipv4Packet::new_checked(&syn_ack[14..]).unwrap();
        let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(tcp.syn() && tcp.ack() && tcp.ack_number() == TcpSeqNumber(self.seq));
        self.ack = Some(tcp.seq_number().0.wrapping_add(1));
    }

    fn segment(&self, to: u16, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: self.port,
            dst_port: to,
            control,
            seq_number: TcpSeqNumber(self.seq),
            ack_number: self.ack.map(TcpSeqNumber),
            window_len: 65_000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None::<TcpTimestampRepr>,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: self.source.into(),
            dst_addr: [10, 9, 0, 2].into(),
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut frame = vec![0; 14 + ip.buffer_len() + tcp.buffer_len()];
        frame[..6].copy_from_slice(&SLEEPER.0);
        frame[6..12].copy_from_slice(&CLIENT.0);
        frame[12..14].copy_from_slice(&[8, 0]);
        // The checksum of TCP is left to an interface, as a local client leaves it.
        let mut sums = ChecksumCapabilities::ignored();
        sums.ipv4 = smoltcp::phy::Checksum::Both;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.emit(&mut packet, &sums);
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &ip.src_addr.into(), &ip.dst_addr.into(), &sums);
        frame
    }
}
