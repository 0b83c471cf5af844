//! Aligned columns.

use std::fmt::Write as _;

use anstyle::Style;

use super::{BOLD, PLAIN, clean};

/// A cell: text and how it looks.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    pub(super) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), style, right: false }
    }

    /// A number: aligned at its last digit.
    pub(super) fn number(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::styled(text, PLAIN) }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn write(&self, width: usize, to: &mut String) {
        let padding = width.saturating_sub(self.width());
        let (before, after) = if self.right { (padding, 0) } else { (0, padding) };
        let style = self.style;
        let _ = write!(to, "{:before$}{style}{}{style:#}{:after$}", "", self.text, "");
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, PLAIN)
    }
}

/// Rows in aligned columns with two blanks between; the last column is not padded.
pub(super) fn rows(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_last = column + 1 == row.len();
            cell.write(if is_last && !cell.right { 0 } else { *width }, &mut line);
            line.push_str(if is_last { "" } else { "  " });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A heading over rows; a heading is aligned as the cells under it.
pub(super) fn table(heading: &[&str], mut body: Vec<Vec<Cell>>) -> String {
    let right = |column: usize| body.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right);
    let head = heading.iter().enumerate();
    let head = head.map(|(column, text)| Cell { right: right(column), ..Cell::styled(text, BOLD) }).collect();
    body.insert(0, head);
    rows(&body)
}

/// Labels and values under a title, indented; a value of several lines keeps its column.
pub(super) fn fields(fields: &[(&str, Vec<Cell>)]) -> String {
    let line = |label: &str, value: Cell| vec![Cell::from(""), Cell::styled(label, BOLD), value];
    let lines = fields.iter().flat_map(|(label, values)| {
        values.iter().enumerate().map(move |(n, value)| line(if n == 0 { label } else { "" }, value.clone()))
    });
    rows(&lines.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_aligned() {
        let body = vec![
            vec!["web".into(), Cell::number("1"), "a".into()],
            vec!["database".into(), Cell::number("1024"), "".into()],
        ];
        let text = plain(&table(&["NAME", "N", "NOTE"], body));
        assert_eq!(text, "NAME         N  NOTE\nweb          1  a\ndatabase  1024\n");
    }

    #[test]
    fn fields_keep_their_column() {
        let text =
            fields(&[("one", vec!["a".into(), "b".into()]), ("none", vec![]), ("three", vec!["c".into()])]);
        assert_eq!(plain(&text), "  one    a\n         b\n  three  c\n");
    }

    proptest! {
        #[test]
        fn every_row_is_one_line(cells in proptest::collection::vec(proptest::collection::vec(".*", 0..4), 0..5)) {
            let body: Vec<Vec<Cell>> = cells.iter().map(|row| row.iter().map(Cell::from).collect()).collect();
            prop_assert_eq!(rows(&body).lines().count(), cells.len());
        }
    }
}
