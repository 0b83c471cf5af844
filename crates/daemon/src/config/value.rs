//! Kinds of values in the configuration file, and how they are checked.

use core::fmt;
use std::{path::Path, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ConfigError;

/// A length of time, written as `200ms`, `5s` or `10m`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span(Duration);

/// How held frames are joined to direct ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// By eBPF where the kernel lets it, plainly elsewhere.
    Auto,
    /// Plainly, even where eBPF would do.
    Plain,
}

/// What becomes of running machines when the daemon is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// They run on.
    Leave,
    /// They are put to sleep first, as their files say.
    Sleep,
}

/// A bound in bytes, or none; written as a number, as `16GiB`, or as `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling(Option<u64>);

impl Ceiling {
    /// The bound, if there is one.
    #[must_use]
    pub const fn get(self) -> Option<u64> {
        self.0
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => bytes.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl Serialize for Ceiling {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ceiling {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        match written.size() {
            _ if matches!(&written, Written::Text(text) if text == "none") => Ok(Self(None)),
            Some(bytes) => Ok(Self(Some(bytes))),
            None => Err(de::Error::custom(format!(
                "{written} is not a size: write a number of bytes, as 16GiB, or \"none\""
            ))),
        }
    }
}

impl Span {
    pub(crate) const fn new(span: Duration) -> Self {
        Self(span)
    }

    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(super) const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The length.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is not a length of time: write a number and a unit, as 200ms, 5s or 10m"
            ))
        })
    }
}

/// A size as it may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl Written {
    /// Its bytes, if it is one.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok().map(|size: bytesize::ByteSize| size.as_u64()),
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// A number of bytes, written as a number or as `8MiB`.
pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let written = Written::deserialize(from)?;
    let size = written.size().and_then(|bytes| usize::try_from(bytes).ok());
    size.ok_or_else(|| {
        de::Error::custom(format!("{written} is not a size: write a number of bytes, or as 8MiB"))
    })
}

/// Networks, each written as `10.0.0.0/8` or as a single address.
pub(super) mod nets {
    use dormouse_types::Matcher;
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    pub(in crate::config) fn serialize<S: Serializer>(nets: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        nets.serialize(to)
    }

    /// As after `from` in a wake rule, which is read by the same rules.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let net = |text: &String| format!("any from {text}").parse::<Matcher>();
        let read: Result<Vec<_>, _> = texts.iter().map(net).collect();
        Ok(read.map_err(D::Error::custom)?.into_iter().flat_map(|matcher| matcher.from).collect())
    }
}

/// Something that must be true of a value.
pub(super) struct Rule {
    key: String,
    value: String,
    holds: bool,
    allowed: &'static str,
}

impl Rule {
    pub(super) fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        holds: bool,
        allowed: &'static str,
    ) -> Self {
        Self { key: key.into(), value: value.to_string(), holds, allowed }
    }
}

/// The first rule that is broken is the error.
pub(super) fn check(rules: &[Rule], path: &Path) -> Result<(), ConfigError> {
    match rules.iter().find(|rule| !rule.holds) {
        None => Ok(()),
        Some(Rule { key, value, allowed, .. }) => {
            Err(ConfigError::Value { path: path.into(), key: key.clone(), value: value.clone(), allowed })
        }
    }
}
