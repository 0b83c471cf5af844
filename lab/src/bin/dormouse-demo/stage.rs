//! What the audience sees: steps, findings, a spinner while something takes its time, a table at the end.
//!
//! The spinner is drawn on a terminal only; colours follow `NO_COLOR` and the terminal (anstream).

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const LABEL_WIDTH: usize = 18;

/// The stage.
#[derive(Debug)]
pub(crate) struct Stage {
    spinner: ProgressBar,
    untrue: usize,
    table: Vec<(String, String)>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { spinner: ProgressBar::hidden(), untrue: 0, table: Vec::new() }
    }

    pub(crate) fn headline(&self, text: &str) {
        self.print(&format!("{BOLD}{text}{BOLD:#}"));
    }

    /// A step begins.
    pub(crate) fn step(&mut self, title: &str) {
        self.rest();
        self.print(&format!("{BOLD}▸ {title}{BOLD:#}"));
    }

    /// Says what is waited for, until the next finding.
    pub(crate) fn waiting(&mut self, what: &str) {
        self.rest();
        if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            self.spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed}") {
                self.spinner.set_style(style);
            }
            self.spinner.set_message(what.to_owned());
            self.spinner.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// A finding with its figures; one that is not so fails the demo.
    pub(crate) fn check(&mut self, is_so: bool, label: &str, figures: &str) {
        self.rest();
        let (mark, colour) = if is_so { ('✓', AnsiColor::Green) } else { ('✗', AnsiColor::Red) };
        let style = Style::new().fg_color(Some(colour.into()));
        self.print(&format!("  {style}{mark}{style:#} {label:LABEL_WIDTH$} {figures}"));
        self.untrue += usize::from(!is_so);
    }

    /// A line to read, neither true nor untrue.
    pub(crate) fn note(&self, text: &str) {
        self.print(&format!("  {DIM}{text}{DIM:#}"));
    }

    /// A row of the table at the end.
    pub(crate) fn row(&mut self, what: &str, figure: String) {
        self.table.push((what.to_owned(), figure));
    }

    /// The story could not go on.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        self.check(false, "cannot go on", &format!("{error:#}"));
    }

    /// The table of what was measured, once.
    pub(crate) fn table(&mut self) {
        self.rest();
        let table = std::mem::take(&mut self.table);
        let width = table.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        if !table.is_empty() {
            self.print("");
        }
        for (what, figure) in table {
            self.print(&format!("  {what:width$}   {BOLD}{figure}{BOLD:#}"));
        }
    }

    /// Says so if something was not as it must be.
    pub(crate) fn verdict(&self) {
        match self.untrue {
            0 => {}
            1 => self.print("one of the findings above is not as it must be"),
            n => self.print(&format!("{n} of the findings above are not as they must be")),
        }
    }

    pub(crate) const fn all_true(&self) -> bool {
        self.untrue == 0
    }

    fn rest(&mut self) {
        self.spinner.finish_and_clear();
        self.spinner = ProgressBar::hidden();
    }

    fn print(&self, line: &str) {
        // A reader that has gone away, as `head`, must not end the demo before its clean-up.
        let _ = writeln!(anstream::stdout(), "{line}");
    }
}
