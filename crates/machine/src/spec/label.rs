//! Whose a machine is: its owner, and labels by which usage is summed and machines are told apart.

use std::collections::BTreeMap;

use super::file::text;
use super::read::{Section, Value};

/// The most labels of a machine.
const LABELS: usize = 32;
/// The longest name of an owner or label, and the longest value of a label, in characters.
const LONGEST: usize = 63;

/// What spreadsheets take for the beginning of a formula when they read CSV (CWE-1236), also in its full width.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// A machine's owner: a name without blanks, so that it stands unquoted in tables and CSV.
pub(super) fn owner(value: &Value<'_>) -> Result<String, String> {
    let name = text(value, "it in quotes")?;
    let clean = name.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c));
    if clean && fits(name) && !name.starts_with(FORMULA) {
        Ok(name.into())
    } else {
        Err(format!(
            "must be 1 to {LONGEST} letters, digits, '-', '_', '.', '@' and '+', the first none of '-', '@' and \
             '+', as \"alice\""
        ))
    }
}

/// `[labels]`: any keys, each with a text.
pub(super) fn labels(section: &Section<'_, '_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in section.entries() {
        match label(key, value) {
            Ok(text) => drop(labels.insert(key.to_owned(), text)),
            Err(fix) => section.wrong(key, fix),
        }
    }
    if section.entries().count() > LABELS {
        section.wrong_itself(format!("has too many keys; a machine can have {LABELS} labels"));
    }
    labels
}

fn label(key: &str, value: &Value<'_>) -> Result<String, String> {
    let clean = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !(clean && fits(key)) {
        return Err(format!("is no label's name: 1 to {LONGEST} letters, digits, '-', '_' and '.'"));
    }
    let text = text(value, "its value in quotes")?;
    if !fits(text) || text.chars().any(char::is_control) {
        return Err(format!("must be one line of 1 to {LONGEST} characters"));
    }
    if text.starts_with(FORMULA) {
        return Err(
            "must not begin with '=', '+', '-' or '@': spreadsheets would take it for a formula".into()
        );
    }
    Ok(text.into())
}

fn fits(text: &str) -> bool {
    (1..=LONGEST).contains(&text.chars().count())
}
