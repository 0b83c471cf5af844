//! What the readers of our small languages share.

use alloc::string::String;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A number in decimal digits alone: the standard library's readers also take a plus sign.
pub(crate) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()))
}

/// Reads a value that files write as a text.
pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: core::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}
