//! Completions and man pages, from the one definition of the command line.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::args::Cli;

/// Writes the completions for `shell` to `to`.
pub(crate) fn completions(shell: clap_complete::Shell, to: &mut dyn Write) -> std::io::Result<()> {
    // The generator panics when its output fails, so it gets one that cannot.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dormouse", &mut text);
    to.write_all(&text)
}

/// Writes a page for `dormouse` and one for each verb into `dir`.
pub(crate) fn man(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))
}
