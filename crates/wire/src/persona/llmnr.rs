//! The names that a machine answers to by LLMNR (RFC 4795).

use alloc::{string::String, vec::Vec};

use super::Names;
use crate::dns::{self, Message};

/// The port of LLMNR (RFC 4795 §2).
pub(crate) const PORT: u16 = 5355;

/// Learns from an answer of the machine; was there anything new?
pub(super) fn learn(known: &mut Vec<String>, message: &Message) -> bool {
    let [question] = &message.questions[..] else { return false };
    let about_address = matches!(question.kind, dns::kind::A | dns::kind::AAAA | dns::kind::ANY);
    if !message.is_good_answer() || message.answers.is_empty() || !about_address {
        return false;
    }
    let Some(name) = text(&question.name) else { return false };
    let new = known.len() < Names::MAX_LLMNR && !known.contains(&name);
    if new {
        known.reserve_exact(1);
        known.push(name);
    }
    new
}

/// A name as text in lower case with dots between the labels; `None` for one that has a dot in a
/// label, or is not UTF-8.
pub(crate) fn text(mut name: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let [len, rest @ ..] = name {
        if *len == 0 {
            break;
        }
        let (label, further) = rest.split_at_checked(usize::from(*len))?;
        let label = core::str::from_utf8(label).ok().filter(|label| !label.contains('.'))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
        name = further;
    }
    text.make_ascii_lowercase();
    text.shrink_to_fit();
    Some(text).filter(|text| !text.is_empty())
}
