//! `dormouse-demo [--keep] [--rate N]`: a guest sleeps, stays present on its network, and wakes.
//! `dormouse-demo --libvirt`: so does a domain of libvirt, while others use virsh.
//!
//! Tells the story with what it measures as it happens; exit status 1 if any of it is not so.
//! Needs root, and `dormoused` and `dormouse` built beside it. `scripts/demo.sh` sees to all that.
#![forbid(unsafe_code)]

mod domain;
mod figures;
mod stage;
mod story;

use clap::Parser;
use domain::DomainStory;
use dormouse_lab::Lab;
use stage::Stage;
use std::process::ExitCode;
use story::Story;

/// Watch a guest sleep, stay present on its network, and wake.
#[derive(Debug, Parser)]
#[command(name = "dormouse-demo")]
struct Args {
    /// Import a domain of a libvirt in the lab, in place of running a guest of Dormouse's own.
    #[arg(long, conflicts_with_all = ["keep", "rate"])]
    libvirt: bool,
    /// Leave the lab up at the end, and say how to play with it.
    #[arg(long)]
    keep: bool,
    /// Datagrams a second of the stream that is sent through sleep and wake.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut stage = Stage::new();
    // What a demo that was killed left behind would be in nobody's way but the memory's.
    drop(Lab::sweep(false));
    if let Err(error) = tell(&args, &mut stage) {
        stage.error(&error);
    }
    stage.table();
    stage.verdict();
    if stage.all_true() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(args: &Args, stage: &mut Stage) -> anyhow::Result<()> {
    if args.libvirt {
        return tell_of_a_domain(stage);
    }
    stage.headline(
        "Dormouse: client ── bridge ── guest \"web\", 256 MiB; each line is measured as it happens",
    );
    let mut story = Story::begin(stage, args.rate)?;
    story.goes_to_sleep(stage)?;
    story.stays_present(stage)?;
    story.stays_connected(stage)?;
    story.wakes(stage)?;
    story.goes_on(stage)?;
    story.shows_the_waking_page(stage)?;
    story.stream(stage)?;
    if !args.keep {
        return story.clean_up(stage);
    }
    // What can be done now is to be the last to read.
    stage.table();
    story.keep(stage)
}

fn tell_of_a_domain(stage: &mut Stage) -> anyhow::Result<()> {
    stage.headline(
        "Dormouse: client ── bridge ── domain \"web\" of libvirt, 256 MiB; each line is measured as it happens",
    );
    let mut story = DomainStory::begin(stage)?;
    story.imports(stage)?;
    story.goes_to_sleep(stage)?;
    story.stays_present(stage)?;
    story.wakes(stage)?;
    story.leaves_others_be(stage)?;
    story.says_what_it_cost(stage)?;
    story.clean_up(stage)
}
