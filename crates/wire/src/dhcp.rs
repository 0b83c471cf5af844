//! DHCP messages over UDP (RFC 2131 §2, RFC 2132), as far as a lease needs them.

use alloc::{vec, vec::Vec};
use core::net::{Ipv4Addr, SocketAddr};

use dormouse_types::{MacAddr, Timestamp};
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpPacket, EthernetAddress,
};

use crate::{
    frame::Frame,
    persona::Lease,
    udp::{self, Datagram, Route},
};

/// The "magic cookie" of RFC 2131 §3.
const COOKIE: u32 = 0x6382_5363;
/// The header with the cookie; options follow.
const HEADER: usize = 240;
/// The length of a BOOTP message, which some relays insist on (RFC 1542 §2.1).
const MINIMUM: usize = 300;
/// ARP's number for Ethernet.
const ETHERNET: u16 = 1;

/// Codes of options (RFC 2132).
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
    pub(super) const CLIENT_ID: u8 = 61;
    pub(super) const END: u8 = 255;
}

/// A message from or to the client with one Ethernet address.
pub(crate) struct Message<'a> {
    packet: DhcpPacket<&'a [u8]>,
    pub(crate) kind: DhcpMessageType,
}

impl<'a> Message<'a> {
    /// What a client at `mac` sends by `frame`.
    pub(crate) fn from_client(frame: &Frame<'a>, mac: MacAddr) -> Option<Self> {
        Self::parse(frame, mac, DHCP_SERVER_PORT, DhcpOpCode::Request)
    }

    /// What a server or relay says by `frame` to the client at `mac`.
    pub(crate) fn from_server(frame: &Frame<'a>, mac: MacAddr) -> Option<Self> {
        Self::parse(frame, mac, DHCP_CLIENT_PORT, DhcpOpCode::Reply)
    }

    /// Only frames without a VLAN tag: a lease is the interface's own, and renewed without one.
    fn parse(frame: &Frame<'a>, mac: MacAddr, port: u16, opcode: DhcpOpCode) -> Option<Self> {
        let datagram = Datagram::parse(frame).filter(|_| frame.tags().is_empty())?;
        if datagram.dst.port() != port || !datagram.dst.is_ipv4() {
            return None;
        }
        let packet = DhcpPacket::new_checked(datagram.data).ok()?;
        let for_mac = packet.client_hardware_address() == EthernetAddress(mac.0)
            && u16::from(packet.hardware_type()) == ETHERNET;
        if packet.opcode() != opcode || packet.magic_number() != COOKIE || !for_mac {
            return None;
        }
        let kind = packet.options().find(|option| option.kind == option::MESSAGE_TYPE)?;
        Some(Self { kind: DhcpMessageType::from(*kind.data.first()?), packet })
    }

    pub(crate) fn xid(&self) -> u32 {
        self.packet.transaction_id()
    }

    pub(crate) fn client_id(&self) -> Option<Vec<u8>> {
        self.option(option::CLIENT_ID).map(<[u8]>::to_vec)
    }

    pub(crate) fn host_name(&self) -> Option<Vec<u8>> {
        self.option(option::HOST_NAME).map(<[u8]>::to_vec)
    }

    /// What an acknowledgement gives; `None` if it is not one of a lease (one that answers a
    /// DHCPINFORM has no lease time, RFC 2131 §4.3.5).
    pub(crate) fn grant(&self) -> Option<Grant> {
        let seconds = self.number(option::LEASE_TIME).filter(|_| self.kind == DhcpMessageType::Ack)?;
        let address = Some(self.packet.your_ip()).filter(|address| !address.is_unspecified())?;
        let (renew, rebind) =
            times(seconds, self.number(option::RENEWAL_TIME), self.number(option::REBINDING_TIME));
        Some(Grant { address, server: self.number(option::SERVER)?.into(), seconds, renew, rebind })
    }

    fn option(&self, kind: u8) -> Option<&[u8]> {
        self.packet.options().find(|option| option.kind == kind).map(|option| option.data)
    }

    fn number(&self, kind: u8) -> Option<u32> {
        self.option(kind)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// What a server grants by an acknowledgement; the times as in [`Lease`].
pub(crate) struct Grant {
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) seconds: u32,
    pub(crate) renew: u32,
    pub(crate) rebind: u32,
}

/// T1 and T2 as the server says, or a half and seven eighths of the lease (RFC 2131 §4.4.5), also
/// if what it says is not in that order.
fn times(seconds: u32, t1: Option<u32>, t2: Option<u32>) -> (u32, u32) {
    let rebind = t2.filter(|t2| *t2 < seconds).unwrap_or(seconds - seconds / 8);
    let renew = t1.filter(|t1| (1..rebind).contains(t1)).unwrap_or(seconds / 2);
    (renew.min(rebind), rebind)
}

/// A DHCPREQUEST of a client at `mac` that has `lease` and wants to keep it (RFC 2131 §4.3.2,
/// "RENEWING" and "REBINDING": `ciaddr` is set, without server identifier and requested address),
/// to everybody if `server` is `None`.
pub(crate) fn request(
    mac: MacAddr,
    lease: &Lease,
    server: Option<(MacAddr, Ipv4Addr)>,
    xid: u32,
    secs: u16,
) -> Option<Vec<u8>> {
    let mut message = vec![0; HEADER];
    let mut packet = DhcpPacket::new_unchecked(&mut message);
    packet.set_opcode(DhcpOpCode::Request);
    packet.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
    packet.set_hardware_len(6);
    packet.set_transaction_id(xid);
    packet.set_secs(secs);
    packet.set_flags(DhcpFlags::empty());
    packet.set_client_ip(lease.address);
    packet.set_client_hardware_address(EthernetAddress(mac.0));
    packet.set_magic_number(COOKIE);
    put(&mut message, option::MESSAGE_TYPE, &[DhcpMessageType::Request.into()]);
    for (kind, data) in [(option::CLIENT_ID, &lease.client_id), (option::HOST_NAME, &lease.host_name)] {
        if let Some(data) = data {
            put(&mut message, kind, data);
        }
    }
    let wanted = [
        option::SUBNET_MASK,
        option::LEASE_TIME,
        option::SERVER,
        option::RENEWAL_TIME,
        option::REBINDING_TIME,
    ];
    put(&mut message, option::PARAMETERS, &wanted);
    message.push(option::END);
    message.resize(message.len().max(MINIMUM), 0);

    let (to_mac, to) = server.unwrap_or((MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    let ends = (
        SocketAddr::new(lease.address.into(), DHCP_CLIENT_PORT),
        SocketAddr::new(to.into(), DHCP_SERVER_PORT),
    );
    udp::build(&Route { tags: &[], macs: (mac, to_mac), ends, hop_limit: 64 }, &message)
}

/// Adds an option; one that is longer than an option can be is left out.
fn put(message: &mut Vec<u8>, kind: u8, data: &[u8]) {
    if let Ok(len) = u8::try_from(data.len()) {
        message.extend_from_slice(&[kind, len]);
        message.extend_from_slice(data);
    }
}

/// A transaction number that others do not guess by counting.
pub(crate) fn transaction(mac: MacAddr, now: Timestamp) -> u32 {
    let mut seed = [0; 14];
    let (address, time) = seed.split_at_mut(6);
    address.copy_from_slice(&mac.0);
    time.copy_from_slice(&now.0.to_be_bytes());
    let [a, b, c, d, ..] = crate::digest(&seed).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
