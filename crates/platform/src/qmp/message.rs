//! What QEMU says: greeting, answers and events (`qmp-spec.txt`, section 2).

use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// One line from QEMU.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// QEMU is there; its version and the protocol's capabilities.
    Greeting(Value),
    /// An answer to the command with this id.
    Return(Option<u64>, Value),
    /// A refusal of the command with this id.
    Refused(Option<u64>, Refusal),
    /// Something happened.
    Event(Event),
    /// None of these; kept, for the log.
    Unknown(Value),
}

/// Why QEMU refused a command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{desc} ({class})")]
pub struct Refusal {
    /// `GenericError`, `CommandNotFound`, ... (`qapi/error.json`), or one we do not know.
    pub class: String,
    /// For people.
    pub desc: String,
}

/// Something that happened, unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `RESUME`, `MIGRATION`, ... (`qapi/*.json`), or one we do not know.
    pub name: String,
    /// What belongs to it; `null` if nothing does.
    pub data: Value,
    /// QEMU's wall clock, since the Unix epoch.
    pub at: Duration,
}

impl Event {
    /// A text in the event's data.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(Value::as_str)
    }
}

impl Message {
    /// Reads one line.
    ///
    /// # Errors
    /// When the line is no JSON.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_slice(line)?;
        let Value::Object(mut object) = value else {
            return Ok(Self::Unknown(value));
        };
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(answer) = object.remove("return") {
            return Ok(Self::Return(id, answer));
        }
        if let Some(greeting) = object.remove("QMP") {
            return Ok(Self::Greeting(greeting));
        }
        if let Some(refusal) = object.get("error").and_then(|e| Refusal::deserialize(e).ok()) {
            return Ok(Self::Refused(id, refusal));
        }
        Ok(event(&mut object).map_or(Self::Unknown(Value::Object(object)), Self::Event))
    }
}

fn event(object: &mut Map<String, Value>) -> Option<Event> {
    let name = object.get("event")?.as_str()?.to_owned();
    let part = |key: &str| object.get("timestamp").and_then(|t| t.get(key)).and_then(Value::as_u64);
    // QEMU writes -1 when it could not read its clock.
    let at = Duration::from_secs(part("seconds").unwrap_or(0))
        .saturating_add(Duration::from_micros(part("microseconds").unwrap_or(0)));
    Some(Event { name, data: object.remove("data").unwrap_or(Value::Null), at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn reads_the_examples_of_the_specification() {
        let greeting = r#"{ "QMP": { "version": { "qemu": { "micro": 0, "minor": 0, "major": 3 }, "package": "v3.0.0"}, "capabilities": ["oob"] } }"#;
        assert!(matches!(read(greeting), Message::Greeting(g) if g["version"]["qemu"]["major"] == 3));
        assert_eq!(read(r#"{"return":{},"id":7}"#), Message::Return(Some(7), json!({})));
        let refusal = Refusal { class: "GenericError".into(), desc: "Invalid JSON syntax".into() };
        assert_eq!(
            read(r#"{ "error": { "class": "GenericError", "desc": "Invalid JSON syntax" } }"#),
            Message::Refused(None, refusal)
        );
        let event =
            r#"{ "timestamp": { "seconds": 1258551470, "microseconds": 802384 }, "event": "POWERDOWN" }"#;
        let at = Duration::new(1_258_551_470, 802_384_000);
        assert_eq!(read(event), Message::Event(Event { name: "POWERDOWN".into(), data: Value::Null, at }));
    }

    #[test]
    fn keeps_what_it_does_not_know() {
        let event = read(
            r#"{"event":"FROM_THE_FUTURE","data":{"a":[1]},"timestamp":{"seconds":-1,"microseconds":-1}}"#,
        );
        assert!(
            matches!(event, Message::Event(e) if e.name == "FROM_THE_FUTURE" && e.data == json!({"a": [1]}))
        );
        assert_eq!(read("[1]"), Message::Unknown(json!([1])));
        assert_eq!(read(r#"{"error":"odd"}"#), Message::Unknown(json!({"error": "odd"})));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::parse(&line);
        }

        #[test]
        fn no_object_makes_it_panic(key in "return|event|error|QMP|id|timestamp|data", value in "0|[1-9][0-9]{0,30}|-1|\"[a-z]*\"|null|\\{\"seconds\":[1-9][0-9]{0,20}\\}") {
            let line = format!(r#"{{"{key}":{value},"event":"E","timestamp":{value}}}"#);
            prop_assert!(Message::parse(line.as_bytes()).is_ok());
        }
    }
}
