//! Policies: what is told of a machine's use, and what they say.

use dormouse_types::MachineName;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::protocol::{Error, VERSION};

/// Of a reason so many characters are kept.
const MAX_WHY: usize = 200;

/// A sample of a machine's use, about which a policy is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Occasion {
    /// The machine.
    pub machine: MachineName,
    /// What is known of its use, by name.
    pub facts: Map<String, Value>,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The machine is to sleep now; else it is to stay awake for now.
    pub sleep: bool,
    /// Why, in one line.
    pub why: String,
}

#[derive(Deserialize)]
struct OpinionLine {
    verdict: Word,
    #[serde(default)]
    why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Keep,
    Sleep,
}

/// The line that asks, with its end.
pub(crate) fn ask(id: u64, occasion: &Occasion) -> serde_json::Result<Vec<u8>> {
    let mut line = occasion.facts.clone();
    line.insert("version".into(), VERSION.into());
    line.insert("id".into(), id.into());
    line.insert("machine".into(), occasion.machine.as_str().into());
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    Ok(line)
}

/// The answer in a line.
pub(crate) fn answer(line: &[u8]) -> Result<Opinion, Error> {
    let OpinionLine { verdict, why } = serde_json::from_slice(line).map_err(Error::Opinion)?;
    let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WHY).collect();
    Ok(Opinion { sleep: verdict == Word::Sleep, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_one_line_with_all_facts() {
        let facts = Map::from_iter([("cpu".to_owned(), 1.5.into()), ("id".to_owned(), "mine".into())]);
        let line = ask(7, &Occasion { machine: "web".parse().unwrap(), facts }).unwrap();
        let (end, json) = line.split_last().unwrap();
        assert!(*end == b'\n' && !json.contains(&b'\n'));
        let read: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(read, serde_json::json!({"version": 1, "id": 7, "machine": "web", "cpu": 1.5}));
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| answer(text.as_bytes());
        let keep = read("{\"id\":1,\"verdict\":\"keep\",\"why\":\"a\\nb\"}").unwrap();
        assert_eq!(keep, Opinion { sleep: false, why: "a b".into() });
        assert!(read("{\"id\":1,\"verdict\":\"sleep\"}").unwrap().sleep);
        for wrong in ["{\"id\":1}", "{\"verdict\":\"wake\"}", "{\"verdict\":\"keep\",\"why\":7}", "keep"] {
            assert!(read(wrong).unwrap_err().to_string().contains("keep|sleep"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_answer_or_an_error(octets in prop::collection::vec(any::<u8>(), 0..100), why in "\\PC{0,300}") {
            let _ = answer(&octets);
            let line = serde_json::json!({"verdict": "keep", "why": why}).to_string();
            prop_assert!(answer(line.as_bytes()).unwrap().why.chars().count() <= MAX_WHY);
        }
    }
}
