//! Reads a TOML table key by key, and goes on past errors so that all of them are reported.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{SpecError, SpecErrors};

/// A value as it stands in the file.
pub(super) type Value<'i> = DeValue<'i>;

/// The longest value that is repeated in an error.
const SHOWN: usize = 60;

/// Gathers what is wrong.
pub(super) struct Report<'i> {
    text: &'i str,
    errors: RefCell<Vec<SpecError>>,
}

impl<'i> Report<'i> {
    pub(super) const fn new(text: &'i str) -> Self {
        Self { text, errors: RefCell::new(Vec::new()) }
    }

    pub(super) fn add(&self, key: String, span: Option<Range<usize>>, value: Option<String>, fix: String) {
        let line = span.map(|span| self.line(span.start));
        self.errors.borrow_mut().push(SpecError { key, line, value, fix });
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
    }

    pub(super) fn finish(self) -> SpecErrors {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        SpecErrors(errors)
    }
}

/// A table of the file. Every key is asked for once, then [`Section::close`] reports the others.
pub(super) struct Section<'a, 'i> {
    pub(super) path: String,
    pub(super) span: Option<Range<usize>>,
    pub(super) report: &'a Report<'i>,
    table: &'a DeTable<'i>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) const fn root(table: &'a DeTable<'i>, report: &'a Report<'i>) -> Self {
        Self { path: String::new(), span: None, report, table, known: RefCell::new(Vec::new()) }
    }

    /// The dotted path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.borrow_mut().push(key);
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value)
    }

    /// Reports what is wrong with the value of `key`, or with its absence.
    pub(super) fn wrong(&self, key: &str, fix: impl Into<String>) {
        let found = self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value);
        let span = found.map(Spanned::span).or_else(|| self.span.clone());
        self.report.add(self.path(key), span, found.map(|v| show(v.get_ref())), fix.into());
    }

    /// The value of `key`, if it is there and as it should be. `parse` says what is allowed.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&Value<'i>) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.get(key)?.get_ref()).map_err(|fix| self.wrong(key, fix)).ok()
    }

    /// As `optional`, and reports if it is absent; `example` is a value as one would write it.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&Value<'i>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.wrong(key, format!("is missing; write for example {key} = {example}"));
            return None;
        }
        self.optional(key, parse)
    }

    /// Is the value of `key` a list with nothing in it?
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let values = self.table.iter().find(|(k, _)| k.get_ref() == key);
        values.and_then(|(_, value)| value.get_ref().as_array()).is_some_and(|values| values.is_empty())
    }

    /// All keys and their values, of a table in which the user chooses the keys. Such a table is not closed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value<'i>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()))
    }

    /// Reports what is wrong with this table as a whole.
    pub(super) fn wrong_itself(&self, fix: impl Into<String>) {
        self.report.add(self.path.clone(), self.span.clone(), None, fix.into());
    }

    /// Is the value of `key` a table?
    pub(super) fn has_table(&self, key: &str) -> bool {
        self.table.iter().any(|(k, value)| k.get_ref() == key && value.get_ref().as_table().is_some())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(k, _)| k.get_ref() == key)
    }

    /// The values of the list `key`, each with its own path in errors.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&Value<'i>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(values) = self.get(key)?.get_ref().as_array() else {
            self.wrong(key, format!("is not a list; write for example {key} = {example}"));
            return None;
        };
        let mut items = Vec::new();
        for (i, value) in values.iter().enumerate() {
            match parse(value.get_ref()) {
                Ok(item) => items.push(item),
                Err(fix) => {
                    let path = format!("{}[{}]", self.path(key), i + 1);
                    self.report.add(path, Some(value.span()), Some(show(value.get_ref())), fix);
                }
            }
        }
        Some(items)
    }

    /// The table `key`.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a, 'i>> {
        let value = self.get(key)?;
        let section = self.inner(self.path(key), value);
        if section.is_none() {
            self.wrong(key, format!("is not a table; write [{key}] on a line of its own"));
        }
        section
    }

    /// The tables of the list `key`; `example` is how one would write one.
    pub(super) fn sections(&self, key: &'static str, example: &str) -> Vec<Section<'a, 'i>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(values) = value.get_ref().as_array() else {
            self.wrong(key, format!("is not a list of tables; write {example}"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let path = format!("{}[{}]", self.path(key), i + 1);
            match self.inner(path.clone(), value) {
                Some(section) => sections.push(section),
                None => {
                    let fix = format!("is not a table; write {example}");
                    self.report.add(path, Some(value.span()), Some(show(value.get_ref())), fix);
                }
            }
        }
        sections
    }

    fn inner(&self, path: String, value: &'a Spanned<DeValue<'i>>) -> Option<Section<'a, 'i>> {
        let table = value.get_ref().as_table()?;
        let known = RefCell::new(Vec::new());
        Some(Section { path, span: Some(value.span()), report: self.report, table, known })
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn close(self) {
        let known = self.known.borrow();
        for (key, value) in self.table {
            if !known.iter().any(|k| k == key.get_ref()) {
                let fix = format!("is not a key of a machine file; here there can be {}", known.join(", "));
                let shown = value.get_ref().as_table().is_none().then(|| show(value.get_ref()));
                self.report.add(self.path(key.get_ref()), Some(key.span()), shown, fix);
            }
        }
    }
}

/// A value as it stands in the file, or the beginning of it.
fn show(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().into(),
        DeValue::Float(number) => number.as_str().into(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".into(),
        DeValue::Table(_) => "{...}".into(),
    };
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain("...".chars()).collect() }
}
