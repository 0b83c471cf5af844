//! `dormouse simulate`: traces against policies, without the daemon.

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use dormouse_machine::policy::{Kind, Settings};
use dormouse_simulate::{Options, Simulation};
use jiff::tz::TimeZone;

use super::print::Printer;
use crate::args::{Format, Simulate};
use crate::exit::Code;
use crate::render;

/// No more policies with different parameters are tried at once.
const MOST: usize = 64;

pub(super) fn run(to: &Printer, args: &Simulate) -> anyhow::Result<Code> {
    let mut simulation = Simulation::new(Options {
        cpu_below: args.cpu_below,
        interval: args.interval,
        start: args.start,
        warm_up: args.warm_up,
        sleep_takes: args.sleep_takes,
        wake_takes: args.wake_takes,
        separate: args.separate,
        zone: TimeZone::UTC,
        policies: policies(args)?,
    });
    for trace in &args.traces {
        replay(&mut simulation, trace)?;
    }
    if let Some(path) = &args.svg {
        let written = std::fs::write(path, simulation.svg());
        written.with_context(|| format!("cannot write the picture {}", path.display()))?;
    }
    let report = simulation.report();
    match to.format() {
        Format::Json => {
            for row in report.rows() {
                to.line(&serde_json::to_string(&row)?)?;
            }
        }
        Format::Csv => to.text(&render::simulation_csv(report))?,
        Format::Table => to.text(&render::simulation(report))?,
    }
    Ok(Code::Ok)
}

fn replay(simulation: &mut Simulation, trace: &Path) -> anyhow::Result<()> {
    if trace == Path::new("-") {
        return Ok(simulation.file("standard input", stdin().lock())?);
    }
    let file = File::open(trace).with_context(|| {
        format!("cannot read the trace {}; name a file of CSV, or - for standard input", trace.display())
    })?;
    Ok(simulation.file(&trace.display().to_string(), BufReader::new(file))?)
}

/// Each policy that is asked for, with each combination of the parameters that it heeds.
fn policies(args: &Simulate) -> anyhow::Result<Vec<(String, Settings)>> {
    let sets: Vec<(&str, Vec<&str>)> =
        args.set.iter().map(|set| key_and_values(set)).collect::<Result<_, _>>()?;
    let is_asked = |kind: &Kind| args.policy.iter().any(|name| name == "all" || name == kind.as_str());
    let mut policies = Vec::new();
    for kind in Kind::ALL.into_iter().filter(is_asked) {
        let mut variants = vec![(kind.to_string(), Settings { kind, ..Settings::default() })];
        for (key, values) in &sets {
            // An unknown parameter is refused even if no policy would heed it.
            Settings::default()
                .set(key, values.first().unwrap_or(&""))
                .map_err(|why| anyhow!("--set {why}"))?;
            if kind.keys().contains(key) {
                variants = combined(&variants, key, values)?;
            }
        }
        policies.extend(variants);
    }
    if policies.len() > MOST {
        anyhow::bail!(
            "--set makes {} policies of these; leave out values until there are {MOST}",
            policies.len()
        );
    }
    Ok(policies)
}

fn key_and_values(set: &str) -> anyhow::Result<(&str, Vec<&str>)> {
    let (key, values) =
        set.split_once('=').ok_or_else(|| anyhow!("--set {set:?}: write KEY=VALUE, as idle_after=10m"))?;
    Ok((key.trim(), values.split(',').map(str::trim).collect()))
}

fn combined(
    variants: &[(String, Settings)],
    key: &str,
    values: &[&str],
) -> anyhow::Result<Vec<(String, Settings)>> {
    let mut all = Vec::new();
    for (name, settings) in variants {
        for value in values {
            let mut settings = *settings;
            settings.set(key, value).map_err(|why| anyhow!("--set {why}"))?;
            all.push((format!("{name} {key}={value}"), settings));
        }
        if all.len() > MOST {
            anyhow::bail!("--set makes more than {MOST} policies; leave out values");
        }
    }
    Ok(all)
}
