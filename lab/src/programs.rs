//! Where the built programs are.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The directory with a program: `DORMOUSE_BIN_DIR`, or the nearest above the running program, which is how
/// cargo lays out `target/debug/deps/test-1234`.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("DORMOUSE_BIN_DIR") {
        return Ok(dir.into());
    }
    let me = std::env::current_exe().map_err(Error::file("find", "the running program"))?;
    let found = me.ancestors().skip(1).find(|dir| dir.join(program).is_file());
    found.map(Path::to_owned).ok_or_else(|| {
        Error::Setup(format!("{program} is not built: run `cargo build --workspace --bins` first"))
    })
}
