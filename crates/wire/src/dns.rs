//! Messages of DNS (RFC 1035 §4) and of the protocols that took its format: mDNS, LLMNR, NetBIOS names.
//!
//! Names are octets as in a message without compression: labels with their lengths, and a zero.

use alloc::vec::Vec;

use crate::frame::u16_at;

/// Types of records (RFC 1035 §3.2.2, RFC 3596, RFC 2782, RFC 4034, RFC 1002 §4.2.1.3).
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const NB: u16 = 32;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const ANY: u16 = 255;
    /// Of NetBIOS: the number means another thing in DNS.
    pub(crate) const NBSTAT: u16 = 33;
}

/// The class of the Internet, and any.
pub(crate) const IN: u16 = 1;
pub(crate) const ANY_CLASS: u16 = 255;
/// The highest bit of a class in mDNS: a unicast answer is wanted, or the cache is to be flushed.
pub(crate) const TOP_BIT: u16 = 0x8000;

/// Bits of a header's flags.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// The most questions and records of a message that is looked at.
const MAX_ENTRIES: usize = 256;
/// The most questions among them: each is held against all names of each sleeper.
const MAX_QUESTIONS: u16 = 32;
/// The most octets that its names and data have without compression, which can make a hundred of one.
const MAX_EXPANDED: usize = 16 << 10;
/// The longest name (RFC 1035 §3.1).
const MAX_NAME: usize = 255;

/// A whole message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) questions: Vec<Question>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// A record; names in its data are without compression, for the types of [`expand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

impl Message {
    /// Reads a message; `None` if any of it makes no sense, or it has too many parts.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| u16_at(bytes, at);
        let counts = [field(4)?, field(6)?, field(8)?, field(10)?];
        if counts.iter().copied().map(usize::from).sum::<usize>() > MAX_ENTRIES {
            return None;
        }
        let [questions, answers, authority, additional] = counts;
        if questions > MAX_QUESTIONS {
            return None;
        }
        let mut reader = Reader { bytes, at: 12, left: MAX_EXPANDED };
        Some(Self {
            id: field(0)?,
            flags: field(2)?,
            questions: (0..questions).map(|_| reader.question()).collect::<Option<_>>()?,
            answers: reader.records(answers)?,
            authority: reader.records(authority)?,
            additional: reader.records(additional)?,
        })
    }

    /// Does it answer, and not with an error?
    pub(crate) const fn is_good_answer(&self) -> bool {
        self.flags & (flag::RESPONSE | flag::OPCODE | flag::RCODE) == flag::RESPONSE
    }

    /// Is it a standard query (QR and OPCODE are zero)?
    pub(crate) const fn is_query(&self) -> bool {
        self.flags & (flag::RESPONSE | flag::OPCODE) == 0
    }
}

/// Are two names the same (RFC 4343: ASCII letters of either case)? Lengths of labels are below the letters.
pub(crate) fn same_name(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Octets that names and data may still have.
    left: usize,
}

impl Reader<'_> {
    fn question(&mut self) -> Option<Question> {
        Some(Question { name: self.name()?, kind: self.u16()?, class: self.u16()? })
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Option<Record> {
        let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let len = usize::from(self.u16()?);
        let (from, to) = (self.at, self.at.checked_add(len)?);
        self.at = to;
        let data = expand(self.bytes.get(..to)?, from, kind)?;
        self.spend(data.len())?;
        Some(Record { name, kind, class, ttl, data })
    }

    fn spend(&mut self, octets: usize) -> Option<()> {
        self.left = self.left.checked_sub(octets)?;
        Some(())
    }

    fn u16(&mut self) -> Option<u16> {
        let value = u16_at(self.bytes, self.at)?;
        self.at += 2;
        Some(value)
    }

    /// Reads a name (RFC 1035 §4.1.4). Each pointer must lead further back than where the piece
    /// that it ends begins, so that none is followed twice.
    fn name(&mut self) -> Option<Vec<u8>> {
        let (mut name, mut at, mut piece) = (Vec::new(), self.at, self.at);
        let mut end = None;
        loop {
            let len = *self.bytes.get(at)?;
            match (len >> 6, usize::from(len)) {
                (0, len) => {
                    name.extend_from_slice(self.bytes.get(at..=at + len)?);
                    at += 1 + len;
                    if name.len() > MAX_NAME {
                        return None;
                    }
                    if len == 0 {
                        self.at = end.unwrap_or(at);
                        self.spend(name.len())?;
                        return Some(name);
                    }
                }
                (3, _) => {
                    end.get_or_insert(at + 2);
                    at = usize::from(u16_at(self.bytes, at)? & 0x3fff);
                    if at >= piece {
                        return None;
                    }
                    piece = at;
                }
                _ => return None,
            }
        }
    }
}

/// The data of a record that begins at `from` and ends with `bytes`: its name without compression,
/// for those types in which mDNS compresses and that matter here (RFC 6762 §18.14).
fn expand(bytes: &[u8], from: usize, kind: u16) -> Option<Vec<u8>> {
    let data = bytes.get(from..)?;
    let before = match kind {
        kind::NS | kind::CNAME | kind::PTR | kind::NSEC => 0,
        // A NetBIOS node status has its number, and other data.
        kind::SRV => 6,
        _ => return Some(data.to_vec()),
    };
    let mut reader = Reader { bytes, at: from + before, left: MAX_NAME };
    let name = reader.name()?;
    let mut expanded = data.get(..before)?.to_vec();
    expanded.extend_from_slice(&name);
    expanded.extend_from_slice(bytes.get(reader.at..)?);
    Some(expanded)
}

/// A message that is being written.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message of no parts.
    pub(crate) fn new(id: u16, flags: u16) -> Self {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Its length so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn question(&mut self, question: &Question) {
        self.0.extend_from_slice(&question.name);
        self.0.extend_from_slice(&question.kind.to_be_bytes());
        self.0.extend_from_slice(&question.class.to_be_bytes());
        self.count(0);
    }

    pub(crate) fn answer(&mut self, name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) {
        self.record(1, name, kind, class, ttl, data);
    }

    pub(crate) fn additional(&mut self, name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) {
        self.record(3, name, kind, class, ttl, data);
    }

    /// Data that is too long for a record is left out with it.
    fn record(&mut self, section: usize, name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) {
        let Ok(len) = u16::try_from(data.len()) else { return };
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(&kind.to_be_bytes());
        self.0.extend_from_slice(&class.to_be_bytes());
        self.0.extend_from_slice(&ttl.to_be_bytes());
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(data);
        self.count(section);
    }

    /// One more in a section.
    fn count(&mut self, section: usize) {
        if let Some(count) = self.0.get_mut(4 + 2 * section..).and_then(<[u8]>::first_chunk_mut) {
            *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with one PTR record, whose owner and data are `name` and `data`.
    fn with(name: &[u8], data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(1, 0x8400);
        writer.answer(name, kind::PTR, IN, 120, data);
        writer.finish()
    }

    #[test]
    fn names_are_expanded() {
        let message = Message::parse(&with(b"\x01a\x05local\0", &[1, b'b', 0xc0, 14])).unwrap();
        assert_eq!(message.answers[0].name, b"\x01a\x05local\0");
        assert_eq!(message.answers[0].data, b"\x01b\x05local\0");
    }

    #[test]
    fn pointers_lead_back_or_nowhere() {
        // To itself, forwards, and in a circle of two.
        for name in [&[0xc0, 12][..], &[0xc0, 14, 0], &[1, b'a', 0xc0, 12]] {
            assert!(Message::parse(&with(name, &[0])).is_none(), "{name:x?}");
        }
    }

    /// A query of so many questions, all but the first by a pointer to its name.
    fn questions(count: u16, name: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(1, 0);
        writer.question(&Question { name: name.to_vec(), kind: kind::A, class: IN });
        (1..count).for_each(|_| {
            writer.question(&Question { name: [0xc0, 12].into(), kind: kind::A, class: IN });
        });
        writer.finish()
    }

    #[test]
    fn what_compression_hides_is_bounded() {
        assert_eq!(Message::parse(&questions(32, b"\x01a\0")).unwrap().questions.len(), 32);
        assert!(Message::parse(&questions(33, b"\x01a\0")).is_none());
        let name = [&[&[63][..], &[b'a'; 63]].concat().repeat(3)[..], &[0]].concat();
        let answers = |count: u16| {
            let mut writer = Writer::new(1, 0);
            writer.answer(&name, kind::A, IN, 1, &[]);
            (1..count).for_each(|_| writer.answer(&[0xc0, 12], kind::PTR, IN, 1, &[0xc0, 12]));
            writer.finish()
        };
        let most = u16::try_from(MAX_EXPANDED / name.len() / 2).unwrap();
        assert!(Message::parse(&answers(most)).is_some());
        assert!(Message::parse(&answers(most + 2)).is_none());
    }

    #[test]
    fn long_names_are_refused() {
        let long = |labels| [&[&[63][..], &[b'a'; 63]].concat().repeat(labels)[..], &[0]].concat();
        assert!(Message::parse(&with(&long(3), &[0])).is_some());
        assert!(Message::parse(&with(&long(4), &[0])).is_none());
    }
}
