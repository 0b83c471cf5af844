//! Cuts a stream of bytes into lines of bounded length.

/// A line was longer than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {limit} bytes")]
pub struct LineTooLong {
    /// The longest line allowed, in bytes, without its newline.
    pub limit: usize,
}

/// Bytes that have come, up to the next newline.
#[derive(Debug)]
pub struct Lines {
    held: Vec<u8>,
    /// No newline is before this index.
    searched: usize,
    limit: usize,
}

impl Lines {
    /// A buffer for lines of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { held: Vec::new(), searched: 0, limit }
    }

    /// Adds bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Takes the next whole line, without `\n` or `\r\n`.
    ///
    /// # Errors
    /// When a line is too long. The stream is then of no more use.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let newline = self.held[self.searched..].iter().position(|b| *b == b'\n');
        let length = newline.map_or(self.held.len(), |at| self.searched + at);
        if length > self.limit {
            return Err(LineTooLong { limit: self.limit });
        }
        if newline.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let mut line: Vec<u8> = self.held.drain(..=length).collect();
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut out = Vec::new();
        while let Some(line) = lines.next_line()? {
            out.push(line);
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b'\r')], 0..200),
            cuts in proptest::collection::vec(1_usize..20, 0..40),
        ) {
            let mut whole = Lines::new(1000);
            whole.push(&bytes);
            let expected = all(&mut whole).unwrap();
            let (mut pieces, mut got, mut rest) = (Lines::new(1000), Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                got.extend(all(&mut pieces).unwrap());
                rest = after;
            }
            pieces.push(rest);
            got.extend(all(&mut pieces).unwrap());
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn holds_no_more_than_the_limit(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..40)) {
            let mut lines = Lines::new(32);
            for chunk in chunks {
                lines.push(&chunk);
                if all(&mut lines).is_err() {
                    break;
                }
                prop_assert!(lines.held.len() <= 32);
            }
        }
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_more_does_not() {
        let mut lines = Lines::new(4);
        lines.push(b"abcd\r\n");
        assert_eq!(lines.next_line(), Err(LineTooLong { limit: 4 }));
        let mut lines = Lines::new(4);
        lines.push(b"abcd\n");
        assert_eq!(lines.next_line(), Ok(Some(b"abcd".to_vec())));
    }
}
