//! Questions and answers as lines of JSON.

use serde::{Deserialize, Serialize};

use crate::{Question, Verdict};

/// The version of the protocol, in every question.
pub(crate) const VERSION: u32 = 1;
/// The longest line that a program may write, in octets.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// The most frames in an answer.
const MAX_FRAMES: usize = 16;
/// Octets of a frame: from an Ethernet header to the longest that Linux passes on.
const FRAME: std::ops::RangeInclusive<usize> = 14..=65_554;

#[derive(Serialize)]
struct QuestionLine<'a> {
    version: u32,
    id: u64,
    machine: &'a str,
    frame: String,
    summary: &'a str,
}

/// Of any answer: the question's number.
#[derive(Deserialize)]
struct IdLine {
    id: u64,
}

#[derive(Deserialize)]
struct AnswerLine {
    verdict: Word,
    #[serde(default)]
    frames: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Reply,
    Wake,
    Ignore,
    Hold,
}

/// Why a line is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not the JSON of one.
    #[error("it is not {{\"id\": N, \"verdict\": \"reply|wake|ignore|hold\", \"frames\": [\"HEX\"]}}")]
    Json(#[from] serde_json::Error),
    /// It has no number.
    #[error("it is no JSON object with the \"id\" of a question")]
    Id(#[source] serde_json::Error),
    /// It is not the JSON of a policy's answer.
    #[error("it is not {{\"id\": N, \"verdict\": \"keep|sleep\", \"why\": \"...\"}}")]
    Opinion(#[source] serde_json::Error),
    /// A frame is not hexadecimal.
    #[error("a frame is not pairs of hexadecimal digits")]
    Hex(#[from] hex::FromHexError),
    /// A frame cannot be sent.
    #[error("a frame of {0} octets: it must have 14 to 65554")]
    Length(usize),
    /// There are too many frames.
    #[error("{0} frames: there may be {MAX_FRAMES}")]
    Count(usize),
    /// A reply of nothing.
    #[error("a reply without frames: say \"ignore\" for no reply")]
    Empty,
}

/// The line that asks, with its end.
pub(crate) fn ask(id: u64, question: &Question) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(&QuestionLine {
        version: VERSION,
        id,
        machine: question.machine.as_str(),
        frame: hex::encode(&question.frame),
        summary: &question.summary,
    })?;
    line.push(b'\n');
    Ok(line)
}

/// The number of the question that a line answers.
pub(crate) fn id(line: &[u8]) -> Result<u64, Error> {
    let IdLine { id } = serde_json::from_slice(line).map_err(Error::Id)?;
    Ok(id)
}

/// The answer in a line.
pub(crate) fn answer(line: &[u8]) -> Result<Verdict, Error> {
    let answer: AnswerLine = serde_json::from_slice(line)?;
    Ok(match answer.verdict {
        Word::Reply => Verdict::Reply(frames(&answer.frames)?),
        Word::Wake => Verdict::Wake,
        Word::Ignore => Verdict::Ignore,
        Word::Hold => Verdict::Hold,
    })
}

fn frames(texts: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    match texts.len() {
        0 => return Err(Error::Empty),
        1..=MAX_FRAMES => {}
        more => return Err(Error::Count(more)),
    }
    let frame = |text: &String| {
        let octets = hex::decode(text)?;
        if FRAME.contains(&octets.len()) { Ok(octets) } else { Err(Error::Length(octets.len())) }
    };
    texts.iter().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_one_line() {
        let question = Question {
            machine: "web".parse().unwrap(),
            frame: vec![0x52, 0xff, 0],
            summary: "a \"b\"\nc".into(),
        };
        assert_eq!(
            String::from_utf8(ask(7, &question).unwrap()).unwrap(),
            "{\"version\":1,\"id\":7,\"machine\":\"web\",\"frame\":\"52ff00\",\"summary\":\"a \\\"b\\\"\\nc\"}\n"
        );
    }

    #[test]
    fn answers_are_read() {
        let frame = "00".repeat(14);
        let text = format!("{{\"id\":1,\"verdict\":\"reply\",\"frames\":[\"{frame}\"],\"more\":2}}");
        assert_eq!(answer(text.as_bytes()).unwrap(), Verdict::Reply(vec![vec![0; 14]]));
        assert_eq!(id(text.as_bytes()).unwrap(), 1);
        for (word, verdict) in [("wake", Verdict::Wake), ("ignore", Verdict::Ignore), ("hold", Verdict::Hold)]
        {
            let text = format!("{{\"verdict\":\"{word}\",\"id\":2}}");
            assert_eq!((id(text.as_bytes()).unwrap(), answer(text.as_bytes()).unwrap()), (2, verdict));
        }
    }

    #[test]
    fn other_lines_are_not() {
        let reply = |frames: &str| format!("{{\"id\":1,\"verdict\":\"reply\",\"frames\":[{frames}]}}");
        let many = vec![format!("\"{}\"", "00".repeat(14)); MAX_FRAMES + 1].join(",");
        for (text, error) in [
            ("hello".into(), "is not {"),
            ("{\"id\":1,\"verdict\":\"sleep\"}".into(), "is not {"),
            (reply("\"0\""), "hexadecimal"),
            (reply("\"zz\""), "hexadecimal"),
            (reply("\"00\""), "14 to 65554"),
            (reply(&many), "there may be 16"),
            (reply(""), "ignore"),
        ] {
            let said = answer(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(error), "{text}: {said}");
        }
    }

    #[test]
    fn a_line_without_a_number_answers_nothing() {
        for text in ["hello", "{}", "{\"id\":-1,\"verdict\":\"wake\"}", "{\"id\":\"1\"}"] {
            assert!(id(text.as_bytes()).unwrap_err().to_string().contains("\"id\""), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_answer_or_an_error(octets in prop::collection::vec(any::<u8>(), 0..100), text in "\\PC*") {
            let _ = (id(&octets), answer(&octets));
            let _ = answer(format!("{{\"id\":1,\"verdict\":\"reply\",\"frames\":[\"{text}\"]}}").as_bytes());
        }
    }
}
