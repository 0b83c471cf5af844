//! The names that a machine has in the NetBIOS name service (RFC 1001, RFC 1002).

use alloc::vec::Vec;

use super::{Names, NetbiosName, Way};
use crate::{
    dns::{Message, Record, flag, kind},
    frame::u16_at,
};

/// The port of the name service (RFC 1002 §4.2).
pub(crate) const PORT: u16 = 137;

/// The name that asks for the status of whoever hears it (RFC 1002 §4.2.17).
pub(crate) const ANYBODY: [u8; 16] = [b'*', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Operations (RFC 1002 §4.2.1.1; 15 is the registration of a machine with several addresses).
pub(crate) mod operation {
    pub(crate) const QUERY: u16 = 0;
    pub(crate) const REGISTRATION: u16 = 5;
    pub(crate) const RELEASE: u16 = 6;
    pub(crate) const REFRESH: u16 = 8;
    pub(crate) const REFRESH_TOO: u16 = 9;
    pub(crate) const MULTI_HOMED: u16 = 15;
}

/// The bit of NB_FLAGS that says "group" (RFC 1002 §4.2.1.3).
pub(crate) const GROUP: u16 = 0x8000;
/// The bits of NB_FLAGS that are the name's own: group, and the type of the node.
const OWN_FLAGS: u16 = 0xe000;

/// The operation of a message.
pub(crate) const fn operation(message: &Message) -> u16 {
    (message.flags & flag::OPCODE) >> 11
}

/// Learns from a message that the machine sent or got; was there anything new?
///
/// A name is had by registering or refreshing it, or by answering for it; it is lost by giving it back, and
/// by another's defence against its registration.
pub(super) fn learn(known: &mut Vec<NetbiosName>, message: &Message, way: Way) -> bool {
    let response = message.flags & flag::RESPONSE != 0;
    let good = message.flags & flag::RCODE == 0;
    let (records, keep) = match (operation(message), response, way) {
        (
            operation::REGISTRATION | operation::REFRESH | operation::REFRESH_TOO | operation::MULTI_HOMED,
            false,
            Way::Sent,
        ) => (&message.additional, true),
        (operation::RELEASE, false, Way::Sent) => (&message.additional, false),
        (operation::QUERY, true, Way::Sent) if good => (&message.answers, true),
        (operation::REGISTRATION | operation::MULTI_HOMED, true, Way::Received) if !good => {
            (&message.answers, false)
        }
        _ => return false,
    };
    records.iter().filter(|record| record.kind == kind::NB).fold(false, |changed, record| {
        let learned =
            name_of(record).is_some_and(|name| if keep { add(known, name) } else { remove(known, &name) });
        changed | learned
    })
}

fn name_of(record: &Record) -> Option<NetbiosName> {
    let (name, flags) = (decode(&record.name)?, u16_at(&record.data, 0)? & OWN_FLAGS);
    Some(NetbiosName { name, group: flags & GROUP != 0, flags })
}

fn add(known: &mut Vec<NetbiosName>, name: NetbiosName) -> bool {
    if is_role(&name.name) || known.contains(&name) {
        return false;
    }
    if let Some(same) = known.iter_mut().find(|same| same.name == name.name) {
        *same = name;
        return true;
    }
    let room = known.len() < Names::MAX_NETBIOS;
    if room {
        known.reserve_exact(1);
        known.push(name);
    }
    room
}

fn remove(known: &mut Vec<NetbiosName>, name: &NetbiosName) -> bool {
    let before = known.len();
    known.retain(|same| same.name != name.name);
    known.len() != before
}

/// Is it the name of a role in browsing (MS-BRWS §3.1.1): of a master browser? A sleeper cannot
/// fill it, so that others shall be able to take it.
fn is_role(name: &[u8; 16]) -> bool {
    matches!(name, [.., 0x1b | 0x1d] | [1, 2, b'_', b'_', ..])
}

/// The name that a label stands for, "half-ASCII" (RFC 1001 §14.1); `None` if it has a scope.
pub(crate) fn decode(name: &[u8]) -> Option<[u8; 16]> {
    let [32, letters @ .., 0] = name else { return None };
    let letters: &[u8; 32] = letters.try_into().ok()?;
    let mut decoded = [0; 16];
    for (octet, pair) in decoded.iter_mut().zip(letters.chunks_exact(2)) {
        let [high @ b'A'..=b'P', low @ b'A'..=b'P'] = pair else { return None };
        *octet = (high - b'A') << 4 | (low - b'A');
    }
    Some(decoded)
}
