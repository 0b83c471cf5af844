//! Multicast groups that a machine joined (IGMP, MLD).

use alloc::vec::Vec;
use core::net::IpAddr;

use dormouse_types::MacAddr;

use super::{Persona, Way};
use crate::{
    frame::Frame,
    membership::{Membership, Record},
};

/// Learns from the reports that the machine itself sends.
///
/// A machine that joined only some sources of a group is taken to have joined all of it: too much
/// comes for it then, and nothing is missed.
pub(super) fn learn(groups: &mut Vec<IpAddr>, frame: &Frame<'_>, way: Way, mac: MacAddr) -> bool {
    if way != Way::Sent || frame.src() != mac {
        return false;
    }
    match Membership::parse(frame) {
        Some(Membership::Report(group)) => note(groups, Record { group, joined: Some(true) }),
        Some(Membership::Leave(group)) => note(groups, Record { group, joined: Some(false) }),
        Some(Membership::Records(records)) => records.filter(|record| note(groups, *record)).count() > 0,
        Some(Membership::Query(_)) | None => false,
    }
}

fn note(groups: &mut Vec<IpAddr>, record: Record) -> bool {
    let known = groups.iter().position(|group| *group == record.group);
    match (record.joined, known) {
        (Some(true), None) if is_reported(record.group) && groups.len() < Persona::MAX_GROUPS => {
            groups.push(record.group);
            true
        }
        (Some(false), Some(at)) => {
            groups.remove(at);
            true
        }
        _ => false,
    }
}

/// Is membership of this group ever reported? Not of all systems (RFC 3376 §6), all nodes, and groups that
/// do not leave the node (RFC 3810 §6).
pub(crate) const fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && !matches!(group.octets(), [224, 0, 0, 1]),
        IpAddr::V6(group) => {
            let scope = group.octets()[1] & 0x0f;
            let all_nodes = matches!(group.segments(), [0xff02, 0, 0, 0, 0, 0, 0, 1]);
            group.is_multicast() && scope > 1 && !all_nodes
        }
    }
}
