//! Multicast groups that a machine joined (IGMP, MLD).

use alloc::vec::Vec;
use core::net::IpAddr;

use dormouse_types::MacAddr;

use super::Way;
use crate::frame::Frame;

pub(super) fn learn(_groups: &mut Vec<IpAddr>, _frame: &Frame<'_>, _way: Way, _mac: MacAddr) -> bool {
    false
}
