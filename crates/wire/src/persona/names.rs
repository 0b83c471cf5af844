//! The names that a machine answers to: mDNS (RFC 6762), LLMNR (RFC 4795), NetBIOS (RFC 1002).

use alloc::{string::String, vec::Vec};

use dormouse_types::MacAddr;
use serde::{Deserialize, Serialize};

use super::{Way, llmnr, mdns, netbios};
use crate::{frame::Frame, udp::Datagram};

/// Names, by the protocol that they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Records that it announced or answered with by mDNS.
    pub mdns: Vec<MdnsRecord>,
    /// Names that it answered to by LLMNR, in lower case without the final dot.
    pub llmnr: Vec<String>,
    /// NetBIOS names that it registered or defended.
    pub netbios: Vec<NetbiosName>,
}

/// A resource record that a machine announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdnsRecord {
    /// Its owner, as in a packet without compression.
    pub name: Vec<u8>,
    /// Its type (RFC 1035 §3.2.2).
    pub kind: u16,
    /// It is the machine's alone (the cache-flush bit, RFC 6762 §10.2).
    pub unique: bool,
    /// How long others may keep it, in seconds.
    pub ttl: u32,
    /// Its data, names in it without compression.
    pub data: Vec<u8>,
}

/// A name of the NetBIOS name service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetbiosName {
    /// Fifteen octets padded with blanks, and the suffix.
    pub name: [u8; 16],
    /// Shared by a group of machines: never defended.
    pub group: bool,
    /// NB_FLAGS as it registered the name (RFC 1002 §4.2.1.3).
    pub flags: u16,
}

impl Names {
    /// Most records of mDNS that are kept.
    pub const MAX_MDNS: usize = 64;
    /// Most octets of names and data that they may have together.
    pub const MAX_MDNS_OCTETS: usize = 8192;
    /// Most names of LLMNR that are kept.
    pub const MAX_LLMNR: usize = 8;
    /// Most NetBIOS names that are kept.
    pub const MAX_NETBIOS: usize = 32;

    pub(super) fn learn(&mut self, frame: &Frame<'_>, way: Way, mac: MacAddr) -> bool {
        let its_own = match way {
            Way::Sent => frame.src() == mac,
            Way::Received => frame.dst() == mac,
        };
        if !its_own {
            return false;
        }
        let Some(datagram) = Datagram::parse(frame) else { return false };
        let parse = || frame.dns();
        match (datagram.src.port(), way) {
            (mdns::PORT, Way::Sent) if datagram.dst.port() == mdns::PORT => {
                parse().is_some_and(|message| mdns::learn(&mut self.mdns, &message))
            }
            (llmnr::PORT, Way::Sent) => {
                parse().is_some_and(|message| llmnr::learn(&mut self.llmnr, &message))
            }
            (netbios::PORT, _) => {
                parse().is_some_and(|message| netbios::learn(&mut self.netbios, &message, way))
            }
            _ => false,
        }
    }
}
