//! Lines of bounded length.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// A line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// At most as many octets as asked for.
    pub(crate) octets: Vec<u8>,
    /// There were more of them.
    pub(crate) cut: bool,
}

/// Reads a line, of which it keeps at most `max` octets; `None` at the end of the stream. A last
/// line without an end is one, too.
pub(crate) async fn read<R: AsyncBufRead + Unpin>(from: &mut R, max: usize) -> std::io::Result<Option<Line>> {
    let mut line = Line { octets: Vec::new(), cut: false };
    let mut any = false;
    loop {
        let part = from.fill_buf().await?;
        if part.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = part.iter().position(|octet| *octet == b'\n');
        let (content, _) = part.split_at(end.unwrap_or(part.len()));
        let (kept, rest) = content.split_at(content.len().min(max - line.octets.len()));
        line.octets.extend_from_slice(kept);
        line.cut |= !rest.is_empty();
        let used = content.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::BufReader;

    fn all(text: &[u8], max: usize, buffer: usize) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut from = BufReader::with_capacity(buffer, text);
            let mut lines = Vec::new();
            while let Some(line) = read(&mut from, max).await.unwrap() {
                lines.push(line);
            }
            lines
        })
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_stream(text in "[a-c\n]{0,60}", max in 1usize..10, buffer in 1usize..20) {
            let expected: Vec<Line> = text.lines().map(|line| Line {
                octets: line.bytes().take(max).collect(),
                cut: line.len() > max,
            }).collect();
            prop_assert_eq!(all(text.as_bytes(), max, buffer), expected);
        }
    }
}
