//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use dormouse_types::MacAddr;
use smoltcp::wire::{ArpOperation as WireOperation, ArpPacket, ArpRepr};

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What it asks or says.
    pub operation: ArpOperation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; `0.0.0.0` in a probe (RFC 5227 §1.1).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; of no meaning in a request.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

/// What an ARP packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has the sender's address.
    Reply,
    /// Any other number.
    Other(u16),
}

impl Arp {
    /// Reads a packet; padding may follow it.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = ArpPacket::new_checked(bytes).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_hardware_addr,
            target_protocol_addr,
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        Some(Self {
            operation: match operation {
                WireOperation::Request => ArpOperation::Request,
                WireOperation::Reply => ArpOperation::Reply,
                WireOperation::Unknown(number) => ArpOperation::Other(number),
            },
            sender_mac: MacAddr(source_hardware_addr.0),
            sender: source_protocol_addr,
            target_mac: MacAddr(target_hardware_addr.0),
            target: target_protocol_addr,
        })
    }

    /// Is this an announcement of the sender's own address (RFC 5227 §3: gratuitous ARP)?
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }
}
