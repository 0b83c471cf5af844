//! `dormouse-lab sweep [--kept]`: removes what the labs of dead processes left behind.
#![forbid(unsafe_code)]

use dormouse_lab::Lab;
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sweep"] => sweep(false),
        ["sweep", "--kept"] => sweep(true),
        _ => {
            eprintln!("usage: dormouse-lab sweep [--kept]");
            ExitCode::from(2)
        }
    }
}

fn sweep(kept: bool) -> ExitCode {
    match Lab::sweep(kept) {
        Ok(removed) => {
            removed.iter().for_each(|id| println!("removed {id}"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("dormouse-lab: {e}");
            ExitCode::FAILURE
        }
    }
}
