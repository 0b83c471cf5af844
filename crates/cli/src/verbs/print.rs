//! Prints to standard output, without colours where they do not belong.

use std::io::Write as _;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::args::Format;
use crate::client::Answer;

/// Prints answers in the format that was asked for.
pub(super) struct Printer {
    format: Format,
}

impl Printer {
    pub(super) const fn new(format: Format) -> Self {
        Self { format }
    }

    pub(super) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// The answer as it is, or rendered for people.
    pub(super) fn answer<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        render: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.line(&answer.line()?),
            Format::Table => self.text(&render(&answer.read()?)),
            Format::Csv => {
                anyhow::bail!("only `dormouse usage` and `dormouse simulate` print CSV; use -o json")
            }
        }
    }

    /// As [`Printer::answer`], where there is CSV too.
    pub(super) fn answer_or_csv<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        render: impl FnOnce(&T) -> String,
        csv: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Csv => self.text(&csv(&answer.read()?)),
            _ => self.answer(answer, render),
        }
    }

    pub(super) fn line(&self, line: &str) -> anyhow::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// `anstream` takes colours away unless a terminal reads along and `NO_COLOR` is unset.
    pub(super) fn text(&self, text: &str) -> anyhow::Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print")
    }
}
