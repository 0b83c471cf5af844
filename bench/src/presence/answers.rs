//! How many questions one core answers, and what answering costs.

use std::time::Duration;

use anyhow::Result;
use dormouse_lab::{Lab, Namespace};

use super::{
    frames, mac,
    process::{Host, StandIn, machine_cpu},
    sender::{self, Traffic},
};
use crate::report::{Table, ratio};

const BLAST: Duration = Duration::from_secs(3);
const STEADY: Duration = Duration::from_secs(5);
const STEADY_RATE: u32 = 20_000;

/// Who answers.
enum Who {
    Surrogate(StandIn),
    Kernel(Host),
}

impl Who {
    const fn name(&self) -> &'static str {
        match self {
            Self::Surrogate(_) => "Dormouse",
            Self::Kernel(_) => "the kernel of a host with these addresses",
        }
    }

    /// Where frames for the nth address go.
    const fn mac(&self, n: u32) -> [u8; 6] {
        match self {
            Self::Surrogate(_) => mac(n),
            Self::Kernel(host) => host.mac,
        }
    }
}

/// Answers and costs, of one who.
struct Figures {
    icmp: Traffic,
    arp: Traffic,
    steady: Traffic,
    /// Share of one core that the whole machine was busy for more than at rest, at the steady rate.
    machine: f64,
    /// The same of the process alone, which the kernel has none of.
    process: Option<f64>,
}

/// Measures at each number of sleepers.
pub(crate) fn measure(sleepers: &[u32], rounds: usize) -> Result<Table> {
    let mut table = Table::new(&[
        "sleepers",
        "answered by",
        "echo replies a second",
        "×",
        "ARP replies a second",
        "×",
        "at 20,000 echo requests a second: answered",
        "busy, of one core, the sender too",
        "of that its process",
    ]);
    for &count in sleepers {
        let mut kernel = Vec::new();
        let mut surrogate = Vec::new();
        for round in 1..=rounds {
            eprintln!("answers: {count} sleepers, {round}/{rounds}");
            kernel.push(one(count, |lab, asker| Ok(Who::Kernel(Host::start(lab.switch(), asker, count)?)))?);
            surrogate.push(one(count, |lab, _| Ok(Who::Surrogate(StandIn::start(lab.switch(), count)?)))?);
        }
        let rival = kernel.iter().map(|(_, figures)| figures).collect::<Vec<_>>();
        for measured in [&surrogate, &kernel] {
            table.push(row(count, measured, &rival));
        }
    }
    Ok(table)
}

fn one(count: u32, who: impl FnOnce(&Lab, [u8; 6]) -> Result<Who>) -> Result<(&'static str, Figures)> {
    let lab = Lab::new("answers")?;
    let client = lab.client_namespace();
    let asker = sender::own_mac(client)?;
    let who = who(&lab, asker)?;
    let echoes: Vec<_> = (0..count).map(|n| frames::echo_request(asker, who.mac(n), n)).collect();
    let requests: Vec<_> = (0..count).map(|n| frames::arp_request(asker, n)).collect();
    // Once round, for the bridge to learn where everybody is.
    sender::send(client, &echoes, Some(STEADY_RATE), Duration::from_millis(500))?;
    let icmp = sender::send(client, &echoes, None, BLAST)?;
    sender::quiet(client)?;
    let arp = sender::send(client, &requests, None, BLAST)?;
    sender::quiet(client)?;
    let figures = steady(client, &echoes, &who)?;
    Ok((who.name(), Figures { icmp, arp, ..figures }))
}

fn steady(client: &Namespace, echoes: &[Vec<u8>], who: &Who) -> Result<Figures> {
    let cpu = || match who {
        Who::Surrogate(process) => process.cpu().map(Some),
        Who::Kernel(_) => Ok(None),
    };
    let at_rest = machine_cpu()?;
    std::thread::sleep(STEADY);
    let (before, own_before) = (machine_cpu()?, cpu()?);
    let traffic = sender::send(client, echoes, Some(STEADY_RATE), STEADY)?;
    let (after, own_after) = (machine_cpu()?, cpu()?);
    let share = |from: Duration, to: Duration| (to - from).as_secs_f64() / traffic.elapsed.as_secs_f64();
    Ok(Figures {
        icmp: traffic,
        arp: traffic,
        steady: traffic,
        machine: share(before, after) - share(at_rest, before),
        process: own_before.zip(own_after).map(|(from, to)| share(from, to)),
    })
}

fn row(count: u32, measured: &[(&'static str, Figures)], rival: &[&Figures]) -> Vec<String> {
    let of = |what: fn(&Figures) -> f64| median(measured.iter().map(|(_, figures)| what(figures)));
    let rivals = |what: fn(&Figures) -> f64| median(rival.iter().map(|figures| what(figures)));
    let icmp = |figures: &Figures| figures.icmp.answers();
    let arp = |figures: &Figures| figures.arp.answers();
    let process = measured.iter().filter_map(|(_, figures)| figures.process).collect::<Vec<_>>();
    vec![
        count.to_string(),
        measured.first().map(|(name, _)| *name).unwrap_or_default().into(),
        format!("{:.0}", of(icmp)),
        ratio(Some(of(icmp) / rivals(icmp))),
        format!("{:.0}", of(arp)),
        ratio(Some(of(arp) / rivals(arp))),
        format!("{:.1} %", 100.0 * of(|f| f.steady.answers() / f64::from(STEADY_RATE))),
        format!("{:.0} %", 100.0 * of(|f| f.machine)),
        if process.is_empty() {
            "–".into()
        } else {
            format!("{:.0} %", 100.0 * median(process.into_iter()))
        },
    ]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
