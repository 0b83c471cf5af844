//! Traces: a line of CSV for each machine, its name and then one value for each interval, in percent
//! of one processor.

use std::io::BufRead;

/// No line is longer, which is ten years of a machine with a value each five minutes.
const LONGEST: u64 = 8 << 20;

/// A value is at most what 256 processors can do.
const MOST: f64 = 25_600.0;

/// A machine's line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

/// Where a trace cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}, column {column}: {problem}")]
pub struct Error {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// The field of the line, from 1.
    pub column: usize,
    /// What is wrong, and how to put it right; part of the text, and therefore no source of it.
    pub problem: Problem,
}

/// What can be wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read further.
    #[error("cannot be read further: {0}; name a file of CSV, or - for standard input")]
    Read(std::io::Error),
    /// No octets of UTF-8.
    #[error("is not text; save the trace as UTF-8")]
    NoText,
    /// Too long.
    #[error("the line is longer than {} MiB; write a machine in a line of its own", LONGEST >> 20)]
    TooLong,
    /// There is nothing in it.
    #[error("the file has no machine; write lines as web,3,0,41")]
    Empty,
    /// A line without a name.
    #[error("the machine's name is missing; write it before the values, as web,3,0,41")]
    NoName,
    /// A name without values.
    #[error("{0:?} has no values; write at least one after the name, as web,3,0,41")]
    NoValues(String),
    /// A second line of one machine.
    #[error("{0:?} is there a second time; write all its values in one line, or a day in a file of its own")]
    Twice(String),
    /// No percentage.
    #[error("{0:?} is no use of processors; write percent of one processor from 0 to 25600, as 12.5")]
    Value(String),
    /// A line of names of columns.
    #[error(
        "{0:?} is no use of processors; write percent of one processor from 0 to 25600, as 12.5, or remove the line if it names the columns"
    )]
    Header(String),
}

/// Reads line by line.
pub(crate) struct Lines<R> {
    file: String,
    text: R,
    line: usize,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(file: &str, text: R) -> Self {
        Self { file: file.into(), text, line: 0 }
    }

    /// The next machine; blank lines and those that begin with `#` are passed over.
    pub(crate) fn next_line(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let Some(text) = self.read()? else { return Ok(None) };
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                return self.parse(text).map(Some);
            }
        }
    }

    pub(crate) fn wrong(&self, column: usize, problem: Problem) -> Error {
        Error { file: self.file.clone(), line: self.line.max(1), column, problem }
    }

    fn read(&mut self) -> Result<Option<String>, Error> {
        self.line += 1;
        let mut octets = Vec::new();
        let limited = &mut std::io::Read::take(&mut self.text, LONGEST + 1);
        let read = limited.read_until(b'\n', &mut octets);
        let read = read.map_err(|error| self.wrong(1, Problem::Read(error)))?;
        if u64::try_from(read).is_ok_and(|read| read > LONGEST) {
            return Err(self.wrong(1, Problem::TooLong));
        }
        if read == 0 {
            return Ok(None);
        }
        String::from_utf8(octets).map(Some).map_err(|_| self.wrong(1, Problem::NoText))
    }

    fn parse(&self, text: &str) -> Result<Line, Error> {
        let mut fields = text.split(',').map(str::trim);
        let name = fields.next().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| self.wrong(1, Problem::NoName))?;
        let mut values = Vec::new();
        for (i, field) in fields.enumerate() {
            let value = field.parse().ok().filter(|value: &f64| (0.0..=MOST).contains(value));
            values.push(value.ok_or_else(|| {
                let is_words = values.is_empty() && self.line == 1 && field.parse::<f64>().is_err();
                let shown = field.chars().take(40).collect();
                self.wrong(i + 2, if is_words { Problem::Header(shown) } else { Problem::Value(shown) })
            })?);
        }
        if values.is_empty() {
            return Err(self.wrong(1, Problem::NoValues(name.into())));
        }
        Ok(Line { name: name.into(), values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<Line>, Error> {
        let mut lines = Lines::new("day.csv", text);
        std::iter::from_fn(|| lines.next_line().transpose()).collect()
    }

    #[test]
    fn reads_machines() {
        let lines = read(b"# cpu\nweb, 1,2.5 ,0\r\n\ndb,100").unwrap();
        assert_eq!(lines[0], Line { name: "web".into(), values: vec![1.0, 2.5, 0.0] });
        assert_eq!(lines[1], Line { name: "db".into(), values: vec![100.0] });
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        for (text, expected) in [
            (&b"web,1\nweb2,1,x,3\n"[..], "day.csv, line 2, column 3: \"x\" is no use"),
            (b"web,1,-1", "line 1, column 3: \"-1\""),
            (b"web,1,NaN", "column 3: \"NaN\""),
            (b"web,1,,2", "column 3: \"\" is no use"),
            (b"name,00:00,00:05", "column 2: \"00:00\" is no use of processors; write percent"),
            (b"name,cpu", "remove the line if it names the columns"),
            (b",1,2", "column 1: the machine's name is missing; write"),
            (b"web", "\"web\" has no values; write"),
            (b"w\xff,1", "is not text"),
        ] {
            let error = read(text).unwrap_err();
            assert!(std::error::Error::source(&error).is_none(), "what is said once is not said as a cause");
            let error = error.to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_reason() {
        let folder = std::io::BufReader::new(std::fs::File::open("/").unwrap());
        let error = Lines::new("/", folder).next_line().unwrap_err().to_string();
        assert!(
            error.contains("/, line 1") && error.contains("directory") && error.contains("name a file"),
            "{error}"
        );
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = std::io::BufReader::new(std::io::repeat(b'1'));
        let error = Lines::new("/dev/zero", endless).next_line().unwrap_err();
        assert!(matches!(error.problem, Problem::TooLong), "{error}");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>) {
            for line in read(&octets).into_iter().flatten() {
                prop_assert!(!line.name.is_empty() && !line.values.is_empty());
            }
        }
    }
}
