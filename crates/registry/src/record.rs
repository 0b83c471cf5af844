//! What is remembered of one machine.
//!
//! A record is a JSON object with a `format` number. A field that this version does not know is
//! kept and written back, so that a newer daemon loses nothing when an older one ran in between.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use dormouse_machine::{
    hold::Holds,
    lifecycle::{Cause, State},
};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::Persona;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// The format that this version writes; it reads this one and all before it.
pub const FORMAT: u32 = 1;

/// All that must survive a crash of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// See [`FORMAT`].
    pub format: u32,
    /// The machine's name, which is also its key.
    pub name: MachineName,
    /// The machine file as the user wrote it (TOML).
    pub file: String,
    /// The absolute folder that relative paths in the file start from.
    pub base: PathBuf,
    /// Where it is in its life.
    pub state: State,
    /// When it entered that state.
    pub since: Timestamp,
    /// Why it entered that state, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Addresses learned from its traffic, by interface.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learned: BTreeMap<MacAddr, Vec<IpAddr>>,
    /// What it was seen to be on its networks, by interface.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "readable")]
    pub personas: BTreeMap<MacAddr, Persona>,
    /// What forbids sleep.
    #[serde(default)]
    pub holds: Holds,
    /// What its policy has learned, and needs after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Value>,
    /// What woke it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<LastWake>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// A wake, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWake {
    /// What wanted the machine.
    pub cause: Cause,
    /// When.
    pub at: Timestamp,
    /// From the cause until the guest ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Duration>,
}

impl Record {
    /// The record of a machine that never ran.
    #[must_use]
    pub fn new(name: MachineName, file: String, base: PathBuf, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            name,
            file,
            base,
            state: State::Stopped,
            since: now,
            reason: None,
            learned: BTreeMap::new(),
            personas: BTreeMap::new(),
            holds: Holds::default(),
            policy: None,
            last_wake: None,
            unknown: serde_json::Map::new(),
        }
    }

    /// The bytes that are stored.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Encode { name: self.name.to_string(), source })
    }

    /// Reads what [`Record::encode`] wrote, in this version or an older one.
    pub(crate) fn decode(key: &str, bytes: &[u8]) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable { name: key.into(), source };
        // The number first: a newer format may differ in everything else.
        let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
        if head.format > FORMAT {
            return Err(Error::NewerRecord { name: key.into(), format: head.format });
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

/// Those that can be read. One of another version may not be, which must not cost the machine.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<MacAddr, Persona>, D::Error> {
    let kept = BTreeMap::<MacAddr, serde_json::Value>::deserialize(from)?;
    let read = |(mac, persona)| Some((mac, serde_json::from_value(persona).ok()?));
    Ok(kept.into_iter().filter_map(read).collect())
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_types::Depth;
    use proptest::prelude::*;

    fn record() -> Record {
        let mut record =
            Record::new("web".parse().unwrap(), "name = \"web\"".into(), "/srv".into(), Timestamp(7));
        record.state = State::Asleep { depth: Depth::Saved };
        record.learned.insert(MacAddr([0x52, 0x54, 0, 0, 0, 2]), vec!["10.9.0.2".parse().unwrap()]);
        let groups = vec!["224.0.0.251".parse().unwrap()];
        record.personas.insert(MacAddr([0x52, 0x54, 0, 0, 0, 2]), Persona { groups, ..Persona::default() });
        record.last_wake = Some(LastWake {
            cause: Cause::Packet("tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN".into()),
            at: Timestamp(5),
            took: Some(Duration::from_millis(31)),
        });
        record
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = record().encode().unwrap();
        assert_eq!(Record::decode("web", &bytes).unwrap(), record());
    }

    #[test]
    fn keeps_fields_of_a_newer_daemon() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["profile"] = serde_json::json!({ "uuid": "x" });
        let read = Record::decode("web", value.to_string().as_bytes()).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&read.encode().unwrap()).unwrap();
        assert_eq!(written, value);
    }

    #[test]
    fn reads_records_without_personas_and_passes_over_unreadable_ones() {
        let mut value = serde_json::to_value(record()).unwrap();
        let personas = value.as_object_mut().unwrap().remove("personas").unwrap();
        let read = Record::decode("web", value.to_string().as_bytes()).unwrap();
        assert!(read.personas.is_empty());
        value["personas"] = personas;
        value["personas"]["52:54:00:00:00:03"] = serde_json::json!({ "flows": "many" });
        assert_eq!(Record::decode("web", value.to_string().as_bytes()).unwrap(), record());
    }

    #[test]
    fn refuses_a_newer_format() {
        let error = Record::decode("web", br#"{"format": 99, "other": 1}"#).unwrap_err();
        assert!(matches!(error, Error::NewerRecord { format: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Record::decode("web", &bytes);
        }
    }
}
