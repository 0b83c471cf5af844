//! Usage summed up by what the user asks for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use dormouse_types::Timestamp;

use super::{Amounts, Row};

/// What usage is summed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// By machine.
    Machine,
    /// By owner.
    Owner,
    /// By the value of a label.
    Label(String),
    /// By day.
    Day,
    /// By hour.
    Hour,
}

/// A word that is no [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is nothing to sum by; there are machine, owner, label:KEY, day and hour")]
pub struct NoKey(String);

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        match text {
            "machine" => Ok(Self::Machine),
            "owner" => Ok(Self::Owner),
            "day" => Ok(Self::Day),
            "hour" => Ok(Self::Hour),
            _ => match text.strip_prefix("label:") {
                Some(label) if !label.is_empty() => Ok(Self::Label(label.into())),
                _ => Err(NoKey(text.into())),
            },
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("machine"),
            Self::Owner => f.write_str("owner"),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Day => f.write_str("day"),
            Self::Hour => f.write_str("hour"),
        }
    }
}

/// What was used by those who have the same values of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The values of the keys; empty where a machine has no owner or not that label.
    pub values: Vec<Value>,
    /// What was used.
    pub amounts: Amounts,
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The beginning of an hour or a day.
    Time(Timestamp),
    /// A name.
    Name(String),
}

/// Sums up, a line for each combination of values that there is, in their order. Rows are taken in as they
/// come, and are not kept.
#[derive(Clone, Debug)]
pub struct Table<'k> {
    by: &'k [Key],
    lines: BTreeMap<Vec<Value>, Amounts>,
}

impl<'k> Table<'k> {
    /// One that sums by these keys.
    #[must_use]
    pub const fn new(by: &'k [Key]) -> Self {
        Self { by, lines: BTreeMap::new() }
    }

    /// Takes in a row. `day` and `hour` give the beginning of the day and hour that an instant is in.
    pub fn add(
        &mut self,
        row: &Row,
        day: impl Fn(Timestamp) -> Timestamp,
        hour: impl Fn(Timestamp) -> Timestamp,
    ) {
        let Row { machine, bucket } = row;
        if bucket.amounts.is_empty() {
            return;
        }
        let name = |name: Option<&str>| Value::Name(name.unwrap_or_default().into());
        let value = |key: &Key| match key {
            Key::Machine => name(Some(machine.as_str())),
            Key::Owner => name(bucket.tags.owner.as_deref()),
            Key::Label(label) => name(bucket.tags.labels.get(label).map(String::as_str)),
            Key::Day => Value::Time(day(bucket.start)),
            Key::Hour => Value::Time(hour(bucket.start)),
        };
        self.lines.entry(self.by.iter().map(value).collect()).or_default().merge(&bucket.amounts);
    }

    /// The lines.
    #[must_use]
    pub fn lines(self) -> Vec<Line> {
        self.lines.into_iter().map(|(values, amounts)| Line { values, amounts }).collect()
    }
}
