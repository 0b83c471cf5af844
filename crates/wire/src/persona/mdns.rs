//! The records that a machine shows by mDNS (RFC 6762).

use alloc::vec::Vec;

use super::{MdnsRecord, Names};
use crate::dns::{self, Message, same_name};

/// The port of mDNS (RFC 6762 §3).
pub(crate) const PORT: u16 = 5353;

/// Learns from what the machine announces or answers (RFC 6762 §8.3, §6); was there anything new?
///
/// - A time to live of zero takes the record back (§10.1).
/// - The cache-flush bit replaces all records of the name and type (§10.2).
pub(super) fn learn(known: &mut Vec<MdnsRecord>, message: &Message) -> bool {
    if !message.is_good_answer() {
        return false;
    }
    let sections = message.answers.iter().chain(&message.additional);
    let told: Vec<MdnsRecord> = sections
        .filter(|record| record.class & !dns::TOP_BIT == dns::IN && record.kind != dns::kind::ANY)
        .map(|record| MdnsRecord {
            name: record.name.clone(),
            kind: record.kind,
            unique: record.class & dns::TOP_BIT != 0,
            ttl: record.ttl,
            data: record.data.clone(),
        })
        .collect();
    let before = known.len();
    known.retain(|old| told.contains(old) || !told.iter().any(|new| replaces(new, old)));
    let mut changed = known.len() != before;
    let mut octets: usize = known.iter().map(octets).sum();
    for new in told {
        let room = known.len() < Names::MAX_MDNS && octets + self::octets(&new) <= Names::MAX_MDNS_OCTETS;
        if new.ttl != 0 && room && !known.contains(&new) {
            octets += self::octets(&new);
            // One by one: what is kept for thousands of sleepers has no spare room.
            known.reserve_exact(1);
            known.push(new);
            changed = true;
        }
    }
    known.shrink_to_fit();
    changed
}

fn replaces(new: &MdnsRecord, old: &MdnsRecord) -> bool {
    let same_set = new.kind == old.kind && same_name(&new.name, &old.name);
    same_set && ((new.unique && new.ttl != 0) || new.data == old.data)
}

fn octets(record: &MdnsRecord) -> usize {
    record.name.len() + record.data.len()
}
