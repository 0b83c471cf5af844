//! Compiles the BPF programs with clang; the object is embedded in the library.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const PACKAGES: &str =
    "clang, libbpf-dev and linux-libc-dev (Debian: apt install clang libbpf-dev linux-libc-dev)";

fn main() -> ExitCode {
    match ["steer", "flows"].into_iter().try_for_each(compile) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn compile(program: &str) -> Result<(), String> {
    let variable = |name| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../../bpf");
    let source = folder.join(format!("{program}.c"));
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{program}.o"));
    for input in [&source, &folder.join("frame.h")] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let output = Command::new(&clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        .args(kernel_headers(&variable("CARGO_CFG_TARGET_ARCH")?))
        .arg("-c")
        .args([&source, Path::new("-o"), &object])
        .output()
        .map_err(|error| missing(&clang, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    Err(format!("{clang} could not compile {}: it needs {PACKAGES}", source.display()))
}

/// Where Debian keeps <asm/types.h>, which clang does not look into for the bpf target; other
/// distributions have it in /usr/include itself.
fn kernel_headers(architecture: &str) -> Option<String> {
    let folder = format!("/usr/include/{architecture}-linux-gnu");
    Path::new(&folder).join("asm/types.h").exists().then(|| format!("-I{folder}"))
}

fn missing(clang: &str, error: &io::Error) -> String {
    format!("cannot run {clang} ({error}): the build needs {PACKAGES}; or set CLANG to its path")
}
