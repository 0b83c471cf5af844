//! Tables in Markdown, and their place in a document.

use anyhow::{Context, Result, ensure};
use std::{fmt, fs, path::Path, process::Command};

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing stay empty.
    pub(crate) fn push(&mut self, mut row: Vec<String>) {
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.head.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

/// How many times the median of the other.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(
        || "–".into(),
        |times| if times < 10.0 { format!("{times:.2}") } else { format!("{times:.0}") },
    )
}

/// Has the document all places that will be filled?
pub(crate) fn check(document: &Path, names: &[&str]) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    names.iter().try_for_each(|name| replaced(&text, name, "").map(drop))
}

/// Puts what was measured between `<!-- name -->` and `<!-- /name -->` of a document.
pub(crate) fn fill_in(document: &Path, parts: &[(&str, String)]) -> Result<()> {
    let mut text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    for (name, part) in parts {
        text = replaced(&text, name, part).with_context(|| document.display().to_string())?;
    }
    fs::write(document, text).with_context(|| document.display().to_string())
}

fn replaced(text: &str, name: &str, part: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let places = text.find(&begin).zip(text.find(&end));
    let (from, to) = places.with_context(|| format!("it has no place {begin} ... {end}"))?;
    ensure!(from < to, "{end} comes before {begin}");
    Ok(format!("{}\n\n{}\n\n{}", &text[..from + begin.len()], part.trim(), &text[to..]))
}

/// The machine, as far as it matters to the figures.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let accelerator = if dormouse_lab::guest::has_kvm() { "KVM" } else { "emulated (TCG, no KVM)" };
    format!(
        "{cores} × {}, {} of memory, Linux {}, {}, {}; guests {accelerator}. \
         Load when it began: {}.",
        model.map_or("an unknown processor", |(_, model)| model),
        mib(kib << 10),
        kernel.trim(),
        first_line(Command::new("qemu-system-x86_64").arg("--version")),
        first_line(Command::new("libvirtd").arg("--version")),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default(),
    )
}

fn first_line(command: &mut Command) -> String {
    let out = command.output().map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    out.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(|| "not installed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_its_place() {
        let mut table = Table::new(&["a", "b"]);
        table.push(vec!["1".into()]);
        assert_eq!(table.to_string(), "| a | b |\n|---|---|\n| 1 |  |\n");
        let filled = replaced("x <!-- t -->old<!-- /t --> y", "t", "new\n").unwrap();
        assert_eq!(filled, "x <!-- t -->\n\nnew\n\n<!-- /t --> y");
        assert_eq!(replaced(&filled, "t", "new").unwrap(), filled);
        assert!(replaced("nothing", "t", "new").is_err());
        assert!(replaced("<!-- /t --><!-- t -->", "t", "new").is_err());
    }

    #[test]
    fn ratios_read_well() {
        assert_eq!(ratio(None), "–");
        assert_eq!(ratio(Some(1.004)), "1.00");
        assert_eq!(ratio(Some(81.7)), "82");
    }
}
