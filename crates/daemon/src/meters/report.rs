//! Answers about usage, in the local zone.

use std::collections::BTreeMap;

use dormouse_api_types::{EnergyModel, Problem, ProblemKind, Usage, UsageLine, UsageQuery, UsageReport};
use dormouse_machine::meter::{
    Amounts, Class, Energy,
    report::{Key, Line, Table, Value},
};
use dormouse_types::{MachineName, Timestamp};
use jiff::{Zoned, tz::TimeZone};

use super::Meters;
use crate::{chain::chain, config, pressure};

const GIB_HOUR: f64 = (1_u64 << 30) as f64 * 3600.0 * 1e9;

fn zoned(zone: &TimeZone, at: Timestamp) -> Zoned {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(zone.clone())
}

/// The beginning of the local day that an instant is in.
pub(super) fn day_start(zone: &TimeZone, at: Timestamp) -> Timestamp {
    let start = zoned(zone, at).start_of_day().map(|start| start.timestamp().as_nanosecond());
    start.ok().and_then(|nanos| u64::try_from(nanos).ok()).map_or(at, Timestamp)
}

/// In the local zone with its offset, as `2026-11-21T16:00:00+01:00`.
fn written(zone: &TimeZone, at: Timestamp) -> String {
    zoned(zone, at).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Sums up what was used. Buckets count where they begin, so that the sums of neighbouring spans add up to
/// that of both.
///
/// # Errors
///
/// When there is no such key or machine, or the store cannot be read.
pub(crate) async fn report(
    meters: &Meters,
    energy: &config::Energy,
    query: &UsageQuery,
) -> Result<UsageReport, Problem> {
    let invalid = |key: &str, why: String| Problem::new(ProblemKind::Invalid, why).key(key);
    let by: Vec<Key> = words(query.by.as_deref().unwrap_or("machine"))
        .map(|word| {
            word.parse()
                .map_err(|error: dormouse_machine::meter::report::NoKey| invalid("by", error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    let machines = machines(meters, query)?;
    let (zone, grid) = (&meters.inner.zone, meters.grid());
    let since = grid.hour_start(query.since.map_or(Timestamp(0), |at| at.timestamp()));
    let now = meters.inner.clock.now();
    let until =
        query.until.map_or(now + std::time::Duration::from_secs(1), |at| grid.hour_start(at.timestamp()));
    let mut table = Table::new(&by);
    let mut first: Option<Timestamp> = None;
    // Of one machine after the other: the rows of all may be many.
    for machine in &machines {
        let rows = meters.rows(machine, since, until).await;
        for row in rows.map_err(|error| Problem::new(ProblemKind::Failed, chain(&error)))? {
            let start = row.bucket.start;
            first = Some(first.map_or(start, |first| first.min(start)));
            table.add(&row, |at| day_start(zone, at), |at| grid.hour_start(at));
        }
    }
    let model = model(energy);
    let lines = table.lines();
    let mut total = Amounts::default();
    lines.iter().for_each(|line| total.merge(&line.amounts));
    let line = |Line { values, amounts }: &Line| UsageLine {
        group: by.iter().map(ToString::to_string).zip(values.iter().map(|value| told(zone, value))).collect(),
        usage: usage(amounts, &model),
    };
    Ok(UsageReport {
        since: written(zone, since.max(first.unwrap_or(since))),
        until: written(zone, until.min(now)),
        by: by.iter().map(ToString::to_string).collect(),
        lines: lines.iter().map(line).collect(),
        total: usage(&total, &model),
        energy: EnergyModel {
            memory_watts: model.memory_watts,
            idle_watts: model.idle_watts,
            busy_watts: model.busy_watts,
            cpus: model.cpus,
            memory_bytes: model.memory,
        },
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn machines(meters: &Meters, query: &UsageQuery) -> Result<Vec<MachineName>, Problem> {
    let known = meters.machines();
    let Some(wanted) = &query.machine else { return Ok(known) };
    let find = |word: &str| {
        known.iter().find(|name| name.as_str() == word).cloned().ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("nothing is known of a machine {word}"))
                .key("machine")
                .fix("`dormouse usage` lists all that are or were there")
        })
    };
    words(wanted).map(find).collect()
}

fn told(zone: &TimeZone, value: &Value) -> String {
    match value {
        Value::Name(name) => name.clone(),
        Value::Time(at) => written(zone, *at),
    }
}

fn model(energy: &config::Energy) -> Energy {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Energy {
        memory_watts: energy.memory_watts,
        idle_watts: energy.idle_watts,
        busy_watts: energy.busy_watts,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory: pressure::total_memory().unwrap_or(0),
    }
}

fn usage(amounts: &Amounts, energy: &Energy) -> Usage {
    let span = |class| seconds(amounts.span(class).as_nanos());
    let asleep =
        Class::ALL.iter().filter(|class| class.is_asleep()).map(|class| amounts.span(*class).as_nanos());
    Usage {
        total_seconds: seconds(amounts.total().as_nanos()),
        awake_seconds: span(Class::Awake),
        waking_seconds: span(Class::Waking),
        asleep_seconds: seconds(asleep.sum()),
        paused_seconds: span(Class::Paused),
        pmsuspended_seconds: span(Class::Pmsuspended),
        saved_seconds: span(Class::Saved),
        off_seconds: span(Class::Off),
        suspended_seconds: span(Class::Suspended),
        stopped_seconds: span(Class::Stopped),
        failed_seconds: span(Class::Failed),
        unknown_seconds: span(Class::Unknown),
        vcpu_seconds: seconds(amounts.cpu.into()),
        memory_configured_gib_hours: gib_hours(amounts.configured),
        memory_awake_gib_hours: gib_hours(amounts.configured_awake),
        memory_occupied_gib_hours: gib_hours(amounts.occupied),
        memory_saved_gib_hours: gib_hours(amounts.saved),
        energy_used_wh: rounded(energy.used(amounts) / 3600.0),
        energy_saved_wh: rounded(energy.saved(amounts) / 3600.0),
        wakes: counts(&amounts.wakes),
        sleeps: counts(&amounts.sleeps),
        starts: amounts.starts,
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counts.clone()
}

/// To the millisecond.
#[allow(clippy::cast_precision_loss, reason = "exact to the millisecond for 285,000 years")]
fn seconds(nanos: u128) -> f64 {
    (nanos / 1_000_000) as f64 / 1e3
}

#[allow(clippy::cast_precision_loss, reason = "a figure of six decimals")]
fn gib_hours(byte_nanos: u128) -> f64 {
    rounded(byte_nanos as f64 / GIB_HOUR)
}

/// To six decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
