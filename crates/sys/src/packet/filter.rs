//! Classic BPF filters, for sockets that listen in.
//!
//! Offsets count from the Ethernet header. The kernel has taken one VLAN tag out before a filter
//! sees the frame. Reference: the kernel's `Documentation/networking/filter.rst`.

use dormouse_types::MacAddr;

/// Which way frames go, seen from the host: a tap's guest sends *incoming* frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Only frames that arrive from the link.
    Incoming,
    /// Only frames that this host (its bridge) sends on the link.
    Outgoing,
    /// Both.
    Both,
}

/// A filter program: which frames a socket gets, and how many bytes of each.
#[derive(Clone, Debug)]
pub struct Filter {
    direction: Direction,
    program: Vec<libc::sock_filter>,
}

// Offsets in an Ethernet frame, and in the IP header after it.
const DESTINATION: u32 = 0;
const SOURCE: u32 = 6;
const ETHERTYPE: u32 = 12;
const IPV4_FRAGMENT: u32 = 14 + 6;
const IPV4_PROTOCOL: u32 = 14 + 9;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
// The kernel's ancillary load of skb->pkt_type.
#[expect(clippy::cast_sign_loss, reason = "the kernel reads these negative offsets as unsigned")]
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;

/// A condition that has to hold: loads a value, and goes on only if it is as wanted.
type Condition = [libc::sock_filter; 2];

impl Filter {
    /// Every frame.
    #[must_use]
    pub fn all(direction: Direction, snap: u32) -> Self {
        Self::when(direction, &[], snap)
    }

    /// Frames to a group address: what a bridge floods.
    #[must_use]
    pub fn group(direction: Direction, snap: u32) -> Self {
        Self::when(direction, &[[load(libc::BPF_B, DESTINATION), skip_unless(libc::BPF_JSET, 1)]], snap)
    }

    /// Every frame sent by `mac`: to notice that it speaks, or to learn from the start of all
    /// that it sends.
    #[must_use]
    pub fn from(mac: MacAddr, direction: Direction, snap: u32) -> Self {
        Self::when(direction, &sent_by(mac), snap)
    }

    /// ARP and ICMPv6 sent by `mac`: what tells its addresses, at next to no cost for the rest
    /// of its traffic.
    #[must_use]
    pub fn addresses(mac: MacAddr, direction: Direction, snap: u32) -> Self {
        let mut program = conditions(direction, &sent_by(mac));
        program.push(load(libc::BPF_H, ETHERTYPE));
        program.push(jump(libc::BPF_JEQ, 0x0806, 3, 0));
        program.push(jump(libc::BPF_JEQ, 0x86dd, 0, 3));
        program.push(load(libc::BPF_B, IPV6_NEXT_HEADER));
        program.push(jump(libc::BPF_JEQ, 58, 0, 1));
        program.push(accept(snap));
        program.push(accept(0));
        Self { direction, program }
    }

    /// TCP sent by `mac`: IPv4 packets but later fragments; IPv6 with extension headers is taken
    /// without a look behind them.
    #[must_use]
    pub fn tcp(mac: MacAddr, direction: Direction, snap: u32) -> Self {
        let mut program = conditions(direction, &sent_by(mac));
        program.push(load(libc::BPF_H, ETHERTYPE));
        program.push(jump(libc::BPF_JEQ, 0x0800, 0, 4));
        program.push(load(libc::BPF_B, IPV4_PROTOCOL));
        program.push(jump(libc::BPF_JEQ, 6, 0, 10));
        program.push(load(libc::BPF_H, IPV4_FRAGMENT));
        program.push(jump(libc::BPF_JSET, 0x1fff, 8, 7));
        program.push(jump(libc::BPF_JEQ, 0x86dd, 0, 7));
        program.push(load(libc::BPF_B, IPV6_NEXT_HEADER));
        // TCP, hop-by-hop options, routing, fragment, destination options.
        for (left, header) in (0_u8..5).rev().zip([6, 0, 43, 44, 60]) {
            program.push(jump(libc::BPF_JEQ, header, left, u8::from(left == 0)));
        }
        program.push(accept(snap));
        program.push(accept(0));
        Self { direction, program }
    }

    /// Which way the accepted frames go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub(super) fn program(&self) -> &[libc::sock_filter] {
        &self.program
    }

    fn when(direction: Direction, wanted: &[Condition], snap: u32) -> Self {
        let mut program = conditions(direction, wanted);
        program.push(accept(snap));
        Self { direction, program }
    }
}

fn sent_by(MacAddr([a, b, c, d, e, f]): MacAddr) -> [Condition; 2] {
    [
        [load(libc::BPF_W, SOURCE), skip_unless(libc::BPF_JEQ, u32::from_be_bytes([a, b, c, d]))],
        [load(libc::BPF_H, SOURCE + 4), skip_unless(libc::BPF_JEQ, u32::from_be_bytes([0, 0, e, f]))],
    ]
}

/// Each condition followed by its own `ret 0`, so that no jump has to know what comes later.
fn conditions(direction: Direction, wanted: &[Condition]) -> Vec<libc::sock_filter> {
    let outgoing =
        [load(libc::BPF_B, PACKET_TYPE), skip_unless(libc::BPF_JEQ, u32::from(libc::PACKET_OUTGOING))];
    let first = (direction == Direction::Outgoing).then_some(&outgoing);
    first.into_iter().chain(wanted).flat_map(|[value, test]| [*value, *test, accept(0)]).collect()
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "every BPF opcode fits in a byte")]
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

const fn load(size: u32, at: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at)
}

const fn jump(test: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, jt, jf, value)
}

/// Skips the next instruction if the test holds.
const fn skip_unless(test: u32, value: u32) -> libc::sock_filter {
    jump(test, value, 1, 0)
}

/// Ends the program: the socket gets the first `bytes` of the frame; 0 is nothing at all.
const fn accept(bytes: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}
