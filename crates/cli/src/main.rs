//! `dormouse`: the command line of Dormouse.
//!
//! ```text
//! args     what can be written: the one definition of help, man pages and completions
//! verbs    what each verb asks the daemon, and prints
//! client   HTTP over the daemon's unix socket
//! doctor   what can be looked at without the daemon
//! render   answers as text: pure, `now` is a parameter
//! span     instants as people write them
//! exit     which error ends with which exit status
//! ```
#![forbid(unsafe_code)]

mod args;
mod client;
mod doctor;
mod exit;
mod generate;
mod render;
mod span;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(verbs::run(cli)));
    match ended {
        Ok(code) => code.into(),
        Err(error) => exit::report(None, &error).into(),
    }
}
