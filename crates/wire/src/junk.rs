//! A frame that may be lost.

use dormouse_types::MacAddr;

use crate::frame::ethertype;

/// Octets of a [`junk_frame`]: the shortest Ethernet frame.
pub const JUNK_LEN: usize = 60;

/// The sender that junk frames bear: a locally administered address that spells "mouse".
const SENDER: [u8; 6] = [0x02, b'm', b'o', b'u', b's', b'e'];

/// A frame for `mac` that every receiver ignores (IEEE 802 local experimental EtherType 1).
///
/// QEMU loses the first frame that waits in a tap while it loads a virtio-net device: put this
/// one in front of those that must arrive.
#[must_use]
pub fn junk_frame(mac: MacAddr) -> [u8; JUNK_LEN] {
    let mut frame = [0; JUNK_LEN];
    let [high, low] = ethertype::EXPERIMENTAL_1.to_be_bytes();
    let header = mac.0.into_iter().chain(SENDER).chain([high, low]);
    frame.iter_mut().zip(header).for_each(|(octet, value)| *octet = value);
    frame
}
