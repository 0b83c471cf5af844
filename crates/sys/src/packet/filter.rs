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

// In an IPv6 header with one extension header after it: what comes after that.
const IPV6_AFTER_EXTENSION: u32 = 14 + 40;

/// Ports by which names and leases are told: DHCP, NetBIOS names, mDNS, LLMNR.
const IPV4_PORTS: [u32; 5] = [67, 68, 137, 5353, 5355];
/// The same over IPv6, with DHCPv6.
const IPV6_PORTS: [u32; 4] = [546, 547, 5353, 5355];

/// Instructions that end with a return, whatever the frame.
type Program = Vec<libc::sock_filter>;

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

    /// Every frame sent by `mac`, and what DHCP servers and NetBIOS nodes send to it: to notice
    /// that it speaks.
    #[must_use]
    pub fn speech(mac: MacAddr, snap: u32) -> Self {
        Self::of_guest(mac, vec![accept(snap)], snap)
    }

    /// What tells who the guest `mac` is on its network, at next to no cost for the rest of its
    /// traffic: of what it sends ARP, ICMPv6, IGMP, DHCP, mDNS, LLMNR and NetBIOS names, and what
    /// DHCP servers and NetBIOS nodes send to it.
    #[must_use]
    pub fn persona(mac: MacAddr, snap: u32) -> Self {
        let mut sent = vec![load(libc::BPF_H, ETHERTYPE)];
        sent.extend(accept_if(0x0806, snap));
        sent.extend(within(0x0800, ipv4(snap)));
        sent.extend(within(0x86dd, ipv6(snap)));
        sent.push(accept(0));
        Self::of_guest(mac, sent, snap)
    }

    /// Of what goes to a tap, what DHCP servers and others' NetBIOS say; of what `mac` sends, what `sent` says.
    fn of_guest(mac: MacAddr, sent: Program, snap: u32) -> Self {
        let mut program = vec![load(libc::BPF_B, PACKET_TYPE)];
        program.extend(within(u32::from(libc::PACKET_OUTGOING), answer(snap)));
        program.extend(conditions(Direction::Both, &sent_by(mac)));
        program.extend(sent);
        Self { direction: Direction::Both, program }
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

/// What a guest says over IPv4 of itself: groups, leases and names.
fn ipv4(snap: u32) -> Program {
    let mut program = vec![load(libc::BPF_B, IPV4_PROTOCOL)];
    program.extend(accept_if(libc::IPPROTO_IGMP.cast_unsigned(), snap));
    program.extend(udp_over_ipv4());
    for field in [0, 2] {
        program.push(load_after_ipv4(field));
        program.extend(IPV4_PORTS.into_iter().flat_map(|port| accept_if(port, snap)));
    }
    program.push(accept(0));
    program
}

/// The same over IPv6. Only reports of multicast listeners (RFC 3810 §5) have an extension header.
fn ipv6(snap: u32) -> Program {
    let icmpv6 = libc::IPPROTO_ICMPV6.cast_unsigned();
    let mut extended = vec![load(libc::BPF_B, IPV6_AFTER_EXTENSION)];
    extended.extend(accept_if(icmpv6, snap));
    extended.push(accept(0));
    let mut udp = Program::new();
    for field in [0, 2] {
        udp.push(load(libc::BPF_H, IPV6_AFTER_EXTENSION + field));
        udp.extend(IPV6_PORTS.into_iter().flat_map(|port| accept_if(port, snap)));
    }
    udp.push(accept(0));
    let mut program = vec![load(libc::BPF_B, IPV6_NEXT_HEADER)];
    program.extend(accept_if(icmpv6, snap));
    program.extend(within(libc::IPPROTO_HOPOPTS.cast_unsigned(), extended));
    program.extend(within(libc::IPPROTO_UDP.cast_unsigned(), udp));
    program.push(accept(0));
    program
}

/// A datagram over IPv4 to the port of DHCP clients, or of NetBIOS names: that a name which a guest
/// asked for is another's is said by nobody but the other.
fn answer(snap: u32) -> Program {
    let mut program = [load(libc::BPF_H, ETHERTYPE), skip_unless(libc::BPF_JEQ, 0x0800), accept(0)].to_vec();
    program.push(load(libc::BPF_B, IPV4_PROTOCOL));
    program.extend(udp_over_ipv4());
    program.push(load_after_ipv4(2));
    program.extend(accept_if(68, snap));
    program.extend(accept_if(137, snap));
    program.push(accept(0));
    program
}

/// With the protocol loaded: goes on with whole datagrams and first fragments of UDP, and makes
/// their header reachable for [`load_after_ipv4`].
fn udp_over_ipv4() -> [libc::sock_filter; 6] {
    [
        skip_unless(libc::BPF_JEQ, libc::IPPROTO_UDP.cast_unsigned()),
        accept(0),
        load(libc::BPF_H, IPV4_FRAGMENT),
        jump(libc::BPF_JSET, 0x1fff, 0, 1),
        accept(0),
        // The header's length into the index register.
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14),
    ]
}

/// Loads two octets at `field` of what follows the IPv4 header.
const fn load_after_ipv4(field: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 14 + field)
}

/// Accepts the frame if the loaded value is this one, else goes on.
const fn accept_if(value: u32, snap: u32) -> [libc::sock_filter; 2] {
    [jump(libc::BPF_JEQ, value, 0, 1), accept(snap)]
}

/// Leaves the frame to `then` if the loaded value is this one, else goes on.
fn within(value: u32, then: Program) -> Program {
    // Programs are written here, and none comes near the limit of a jump.
    let length = u8::try_from(then.len()).unwrap_or(u8::MAX);
    [jump(libc::BPF_JEQ, value, 0, length)].into_iter().chain(then).collect()
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
