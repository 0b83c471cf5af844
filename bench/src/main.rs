//! `dormouse-bench`: Dormouse, plain QEMU and libvirt, measured side by side in one run.
//!
//! Prints Markdown to stdout and says on stderr what it is doing. Needs root; `scripts/bench.sh`
//! sees to what it needs. Figures of different runs or machines are not to be compared: their
//! ratios within one run are.
#![forbid(unsafe_code)]

mod awake;
mod crowd;
mod files;
mod parallel;
mod presence;
mod qmp;
mod report;
mod rival;
mod stats;
mod stream;
mod wake;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};
use dormouse_lab::{Lab, guest::Image};
use rival::{Kind, Machine};
use std::{path::PathBuf, process::ExitCode};

/// Measure Dormouse beside plain QEMU and libvirt.
#[derive(Debug, Parser)]
#[command(name = "dormouse-bench")]
struct Args {
    #[command(subcommand)]
    helper: Option<Helper>,
    /// What to measure; everything when absent.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Section::ALL)]
    sections: Vec<Section>,
    /// Beside whom sleeping and waking are measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    rivals: Vec<Kind>,
    /// Guest memory for sleeping and waking.
    #[arg(long, value_delimiter = ',', default_value = "256MiB,1GiB,4GiB")]
    sizes: Vec<ByteSize>,
    /// Share of its memory, in percent, that a guest fills with what does not compress.
    #[arg(long, default_value_t = 75, value_parser = clap::value_parser!(u8).range(0..=80))]
    dirty: u8,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 10)]
    cycles: usize,
    /// Datagrams a second.
    #[arg(long, value_delimiter = ',', default_value = "1000,20000,100000")]
    rates: Vec<u32>,
    /// Sleepers that are answered for at a time.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sleepers: Vec<u32>,
    /// Frames a second of a flood.
    #[arg(long, value_delimiter = ',', default_value = "100000,400000")]
    floods: Vec<u32>,
    /// Machines that are woken at once.
    #[arg(long, value_delimiter = ',', default_value = "10,50", value_parser = clap::value_parser!(u8).range(1..=200))]
    machines: Vec<u8>,
    /// Put the tables into this document, at the places it has for them.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Helper {
    /// Stand in for sleepers that there are not.
    #[command(hide = true)]
    StandIn {
        #[arg(long)]
        bridge: String,
        #[arg(long)]
        sleepers: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Sleeping and waking.
    Wake,
    /// Requests to an awake guest.
    Awake,
    /// Streams through sleep and wake.
    Stream,
    /// Questions answered for many sleepers.
    Answers,
    /// What many sleepers cost.
    Scale,
    /// What many sleepers cost the whole daemon.
    Crowd,
    /// A wake while another sleeper is flooded.
    Flood,
    /// Many machines woken at once.
    Parallel,
    /// Domains of libvirt, slept and woken in each way.
    Libvirt,
}

impl Section {
    const ALL: [Self; 9] = [
        Self::Wake,
        Self::Awake,
        Self::Stream,
        Self::Answers,
        Self::Scale,
        Self::Crowd,
        Self::Flood,
        Self::Parallel,
        Self::Libvirt,
    ];
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.helper {
        Some(Helper::StandIn { bridge, sleepers }) => presence::stand::serve(bridge, *sleepers),
        None => measure(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("dormouse-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(args: &Args) -> Result<()> {
    if let Err(error) = Lab::sweep(false) {
        eprintln!("what a dead run left behind is still there: {error}");
    }
    if let Some(document) = &args.write {
        // Before half an hour of measuring, not after it.
        report::check(document, &names(&args.sections))?;
    }
    let image = Image::build()?;
    let mut parts = Vec::new();
    let mut part = |name: &'static str, text: String| {
        println!("{text}\n");
        parts.push((name, text));
    };
    part("machine", report::machine());
    for section in &args.sections {
        // Of moderate size and with memory to lose.
        let machine = || Machine { image: image.clone(), memory: 512 << 20, dirty: 20 };
        match section {
            Section::Wake => {
                let (waking, sleeping) = wake::measure(&plan(args), &image)?;
                part("waking", waking.to_string());
                part("sleeping", sleeping.to_string());
            }
            Section::Awake => {
                let (requests, bulk) = awake::measure(&machine(), args.cycles)?;
                part("awake", requests.to_string());
                part("bulk", bulk.to_string());
            }
            Section::Stream => {
                part("stream", stream::measure(&machine(), &args.rates, args.cycles)?.to_string());
            }
            Section::Answers => {
                part("answers", presence::answers::measure(&args.sleepers, rounds(args))?.to_string());
            }
            Section::Scale => {
                part("scale", presence::scale::measure(&args.sleepers, rounds(args))?.to_string());
            }
            Section::Crowd => part("crowd", crowd::measure(&image, &args.sleepers)?.to_string()),
            Section::Flood => {
                let wakes = 20 * args.cycles;
                part("flood", presence::flood::measure(&args.floods, wakes)?.to_string());
            }
            Section::Libvirt => {
                let plan = wake::Plan { rivals: Kind::OF_LIBVIRT.to_vec(), ..plan(args) };
                let (waking, sleeping) = wake::measure(&plan, &image)?;
                part("libvirt-waking", waking.to_string());
                part("libvirt-sleeping", sleeping.to_string());
            }
            Section::Parallel => {
                part("parallel", parallel::measure(&args.machines, args.cycles)?.to_string());
            }
        }
    }
    args.write.as_ref().map_or(Ok(()), |document| report::fill_in(document, &parts))
}

/// The places of a document that these sections fill.
fn names(sections: &[Section]) -> Vec<&'static str> {
    let of = |section: &Section| -> &'static [&'static str] {
        match section {
            Section::Wake => &["waking", "sleeping"],
            Section::Awake => &["awake", "bulk"],
            Section::Stream => &["stream"],
            Section::Answers => &["answers"],
            Section::Scale => &["scale"],
            Section::Crowd => &["crowd"],
            Section::Flood => &["flood"],
            Section::Parallel => &["parallel"],
            Section::Libvirt => &["libvirt-waking", "libvirt-sleeping"],
        }
    };
    [&["machine"][..]].into_iter().chain(sections.iter().map(of)).flatten().copied().collect()
}

/// Repetitions of what takes seconds each time.
fn rounds(args: &Args) -> usize {
    args.cycles.div_ceil(4)
}

fn plan(args: &Args) -> wake::Plan {
    wake::Plan {
        rivals: args.rivals.clone(),
        sizes: args.sizes.iter().map(ByteSize::as_u64).collect(),
        dirty: args.dirty,
        cycles: args.cycles,
    }
}
