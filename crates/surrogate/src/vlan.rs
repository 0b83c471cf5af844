//! Frames between the surrogate's port, where each bears the tag of its VLAN, and a guest's, where
//! that of one VLAN bears none.
//!
//! On a switch that tells VLANs apart the surrogate's port is in the VLANs of all sleepers. What
//! the switch would do between itself and a guest's port is done here: a frame of a VLAN that the
//! port is not in is not for the guest, and the tag of an untagged one is taken off, or put on.

use std::cell::{OnceCell, RefCell};

use dormouse_net::Vlans;
use dormouse_sys::{Frame, VlanTag};
use dormouse_types::Timestamp;
use dormouse_wire::Scanners;

use crate::packet::Arrival;

/// Octets of the two addresses, after which a tag stands.
const ADDRESSES: usize = 12;
/// EtherType of a customer's tag (IEEE 802.1Q).
const CUSTOMER: u16 = 0x8100;

/// A frame that was received on the surrogate's port, as ports get it.
pub(crate) struct Received<'a> {
    frame: Frame<'a>,
    now: Timestamp,
    scanners: Option<&'a RefCell<Scanners>>,
    whole: OnceCell<Option<Arrival<'a>>>,
    bare: OnceCell<Option<Arrival<'a>>>,
}

/// How a port gets a frame.
#[derive(Clone, Copy)]
pub(crate) enum Delivery<'b, 'a> {
    /// So.
    Frame(&'b Arrival<'a>),
    /// It is of a VLAN that the port is not in.
    Elsewhere,
    /// Only part of it was received.
    Cut,
}

impl<'a> Received<'a> {
    /// A frame that came at `now`; `scanners` know the sources of its network.
    pub(crate) const fn new(
        frame: Frame<'a>,
        now: Timestamp,
        scanners: Option<&'a RefCell<Scanners>>,
    ) -> Self {
        Self { frame, now, scanners, whole: OnceCell::new(), bare: OnceCell::new() }
    }

    /// As a port in these VLANs gets it; `None`: the switch does not tell them apart.
    pub(crate) fn at(&self, vlans: Option<&Vlans>) -> Delivery<'_, 'a> {
        let id = self.frame.vlan.map_or(0, VlanTag::id);
        let (cell, frame) = match vlans {
            None => (&self.whole, self.frame),
            Some(vlans) if vlans.untagged.contains(&id) => (&self.bare, Frame { vlan: None, ..self.frame }),
            Some(vlans) if vlans.tagged.contains(&id) => (&self.whole, self.frame),
            Some(_) => return Delivery::Elsewhere,
        };
        let arrival = cell.get_or_init(|| Arrival::received(&frame, self.now, self.scanners));
        arrival.as_ref().map_or(Delivery::Cut, Delivery::Frame)
    }
}

/// A frame that a port in these VLANs sends, as it leaves by the surrogate's; `None`: the switch
/// would not take it from that port.
pub(crate) fn outward(mut frame: Vec<u8>, vlans: Option<&Vlans>) -> Option<Vec<u8>> {
    let Some(vlans) = vlans else { return Some(frame) };
    let two = |at: usize| frame.get(at..at + 2).and_then(<[u8]>::first_chunk).map(|b| u16::from_be_bytes(*b));
    let is_tagged = two(ADDRESSES)? == CUSTOMER;
    let id = if is_tagged { two(ADDRESSES + 2)? & 0x0fff } else { 0 };
    if id != 0 {
        return vlans.all().any(|vlan| vlan == id).then_some(frame);
    }
    let native = vlans.native?;
    if native == 0 {
        return Some(frame);
    }
    if is_tagged {
        // A tag that bears a priority only: it gets a VLAN.
        let [high, low] = native.to_be_bytes();
        frame[ADDRESSES + 2] |= high;
        frame[ADDRESSES + 3] = low;
    } else {
        let tag = VlanTag { protocol: CUSTOMER, control: native };
        frame.splice(ADDRESSES..ADDRESSES, tag.to_bytes());
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_sys::VnetHdr;
    use proptest::prelude::*;

    fn frame(bytes: &[u8], vlan: Option<u16>) -> Frame<'_> {
        let vlan = vlan.map(|control| VlanTag { protocol: CUSTOMER, control });
        Frame {
            header: VnetHdr::PLAIN,
            bytes,
            vlan,
            outgoing: false,
            truncated: false,
            mark: 0,
            length: bytes.len(),
        }
    }

    fn at(bytes: &[u8], vlan: Option<u16>, vlans: Option<&Vlans>) -> Option<Vec<u8>> {
        match Received::new(frame(bytes, vlan), Timestamp(1), None).at(vlans) {
            Delivery::Frame(arrival) => Some(arrival.packet().ethernet().to_vec()),
            Delivery::Elsewhere | Delivery::Cut => None,
        }
    }

    #[test]
    fn a_port_gets_the_frames_of_its_vlans_as_the_switch_would_give_them() {
        let bytes = [7; 60];
        let trunk = Vlans { native: Some(1), untagged: [1].into(), tagged: [20, 30].into() };
        assert_eq!(at(&bytes, Some(10), Some(&Vlans::access(10))).unwrap(), bytes);
        assert_eq!(at(&bytes, Some(0x600a), Some(&Vlans::access(10))).unwrap(), bytes);
        assert_eq!(at(&bytes, Some(20), Some(&Vlans::access(10))), None);
        assert_eq!(at(&bytes, None, Some(&Vlans::access(10))), None);
        assert_eq!(at(&bytes, Some(20), Some(&trunk)).unwrap()[12..16], [0x81, 0, 0, 20]);
        assert_eq!(at(&bytes, Some(1), Some(&trunk)).unwrap(), bytes);
        assert_eq!(at(&bytes, Some(20), None).unwrap().len(), 64);
    }

    #[test]
    fn a_part_is_told_from_a_stranger() {
        let part = Frame { truncated: true, ..frame(&[7; 60], Some(10)) };
        let part = Received::new(part, Timestamp(1), None);
        assert!(matches!(part.at(Some(&Vlans::access(10))), Delivery::Cut));
        assert!(matches!(part.at(Some(&Vlans::access(11))), Delivery::Elsewhere));
    }

    #[test]
    fn a_priority_stays() {
        let mut sent = vec![7; 60];
        sent[12..16].copy_from_slice(&[0x81, 0, 0x60, 0]);
        let left = outward(sent, Some(&Vlans::access(0x123))).unwrap();
        assert_eq!((left[12..16].to_vec(), left.len()), (vec![0x81, 0, 0x61, 0x23], 60));
    }

    #[test]
    fn a_port_cannot_send_into_a_vlan_that_it_is_not_in() {
        let mut sent = vec![7; 60];
        sent[12..16].copy_from_slice(&[0x81, 0, 0, 20]);
        assert_eq!(outward(sent.clone(), Some(&Vlans::access(10))), None);
        let trunk = Vlans { native: None, untagged: [].into(), tagged: [20].into() };
        assert_eq!(outward(sent.clone(), Some(&trunk)), Some(sent));
        assert_eq!(outward(vec![7; 60], Some(&trunk)), None);
    }

    proptest! {
        /// What one port sends another one in its VLAN gets as it was.
        #[test]
        fn there_and_back(bytes in prop::collection::vec(any::<u8>(), 14..200), vlan in 1u16..4095) {
            prop_assume!(bytes[12..14] != [0x81, 0]);
            let vlans = Vlans::access(vlan);
            let tagged = outward(bytes.clone(), Some(&vlans)).unwrap();
            prop_assert_eq!(&tagged[12..16], &VlanTag { protocol: CUSTOMER, control: vlan }.to_bytes());
            let bare = [&tagged[..12], &tagged[16..]].concat();
            prop_assert_eq!(at(&bare, Some(vlan), Some(&vlans)).unwrap(), bytes);
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..40), vlan in 1u16..4095) {
            let _ = outward(bytes, Some(&Vlans::access(vlan)));
        }
    }
}
