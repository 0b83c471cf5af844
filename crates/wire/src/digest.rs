//! Telling copies of a frame apart from other frames.

/// The offset basis and the prime of 64-bit FNV (RFC 9923).
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A 64-bit digest of a frame's bytes: FNV-1a (RFC 9923), the same in every process and release.
///
/// It is for recognising copies of a group frame that arrives in several places. It is not for
/// telling friend from foe: two frames with one digest can be made on purpose. Whoever decides by
/// it must be content with deciding twice about one frame, or once about two; compare the bytes
/// where that would lose something.
#[must_use]
pub fn digest(frame: &[u8]) -> u64 {
    frame.iter().fold(BASIS, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn agrees_with_published_values() {
        // From the test vectors of FNV-1a, 64 bits, by its authors.
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
