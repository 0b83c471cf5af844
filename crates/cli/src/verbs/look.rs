//! Verbs that look and change nothing.

use anyhow::Context as _;
use dormouse_api_types::{
    CheckStatus, Event, MachineDetail, MachineSummary, Report, Time, UsageReport, WakeTest, WakeTestRequest,
    WakeVerdict, Why, routes,
};
use dormouse_types::MachineName;

use super::{each, now, print::Printer};
use crate::args::{self, Events, Names};
use crate::client::{Answer, Client, Error};
use crate::exit::{self, Code};
use crate::{doctor, render};

pub(super) async fn list(client: &Client, to: &Printer) -> anyhow::Result<Code> {
    let answer = client.get(routes::MACHINES).await?;
    to.answer(&answer, |machines: &Vec<MachineSummary>| render::list(machines, now()))?;
    Ok(Code::Ok)
}

pub(super) async fn show(client: &Client, to: &Printer, args: &Names) -> anyhow::Result<Code> {
    let print = |answer: Answer| to.answer(&answer, |machine: &MachineDetail| render::show(machine, now()));
    each(&args.names, |name| get(client, routes::MACHINE, name), print).await
}

pub(super) async fn why(client: &Client, to: &Printer, args: &Names) -> anyhow::Result<Code> {
    let print = |answer: Answer| to.answer(&answer, |why: &Why| render::why(why, now()));
    each(&args.names, |name| get(client, routes::WHY, name), print).await
}

pub(super) async fn wake_test(client: &Client, to: &Printer, args: &args::WakeTest) -> anyhow::Result<Code> {
    let request = WakeTestRequest { frame: args.frame.clone(), interface: args.interface };
    let answer = client.post(&routes::of(routes::WAKE_TEST, &args.name), &request).await?;
    to.answer(&answer, render::wake_test)?;
    let WakeTest { verdict, .. } = answer.read()?;
    Ok(if verdict == WakeVerdict::Wakes { Code::Ok } else { Code::NoWake })
}

async fn get(client: &Client, route: &str, name: MachineName) -> anyhow::Result<Answer> {
    Ok(client.get(&routes::of(route, &name)).await?)
}

pub(super) async fn events(client: &Client, to: &Printer, args: &Events) -> anyhow::Result<Code> {
    let mut lines = client.lines(&events_path(args)).await?;
    while let Some(line) = lines.next().await? {
        if line.is_empty() {
            continue;
        }
        let line = String::from_utf8(line).context("the daemon's answer is not text")?;
        if to.is_table() {
            let event: Event = serde_json::from_str(&line).map_err(|source| Error::Answer { source })?;
            to.text(&render::event(&event))?;
        } else {
            to.line(&line)?;
        }
    }
    // The daemon ends a stream that was to be followed only when it ends itself.
    if args.follow { Ok(exit::report(None, &Error::Ended.into())) } else { Ok(Code::Ok) }
}

/// No value needs escaping: a name is made of characters that a query allows.
fn events_path(args: &Events) -> String {
    let machine = args.name.as_ref().map(|name| format!("&machine={name}")).unwrap_or_default();
    let after = args.after.map(|seq| format!("&after={seq}")).unwrap_or_default();
    format!("{}?follow={}{machine}{after}", routes::EVENTS, args.follow)
}

pub(super) async fn doctor_of(client: &Client, to: &Printer, names: &[MachineName]) -> anyhow::Result<Code> {
    let mut sick = Code::Ok;
    let ask = |name: MachineName| async move {
        let answer = get(client, routes::MACHINE_DOCTOR, name.clone()).await?;
        Ok((name, answer))
    };
    let print = |(name, answer): (MachineName, Answer)| {
        let heading = if names.len() > 1 { render::heading(name.as_str()) } else { String::new() };
        to.answer(&answer, |report: &Report| heading + &render::report(report))?;
        if !is_well(&answer.read()?) {
            sick = sick.or(Code::Failed);
        }
        Ok(())
    };
    let code = each(names, ask, print).await?;
    Ok(code.or(sick))
}

fn is_well(report: &Report) -> bool {
    report.checks.iter().all(|check| check.status < CheckStatus::Fail)
}

pub(super) async fn usage(client: &Client, to: &Printer, args: &args::Usage) -> anyhow::Result<Code> {
    let answer = client.get(&usage_path(args)).await?;
    to.answer_or_csv(&answer, |report: &UsageReport| render::usage(report), render::usage_csv)?;
    Ok(Code::Ok)
}

fn usage_path(args: &args::Usage) -> String {
    let time = |key: &str, at| format!("&{key}={}", Time::from(at));
    let until = args.until.map(|at| time("until", at)).unwrap_or_default();
    let names: Vec<_> = args.names.iter().map(MachineName::as_str).collect();
    let names = if names.is_empty() { String::new() } else { format!("&machine={}", names.join(",")) };
    format!("{}?by={}{}{until}{names}", routes::USAGE, escaped(&args.by), time("since", args.since))
}

/// RFC 3986, section 2.1: what is not unreserved is written as its octets. Commas and colons may stay.
fn escaped(text: &str) -> String {
    let octet = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(octet).collect()
}

pub(super) async fn doctor(client: &Client, to: &Printer) -> anyhow::Result<Code> {
    let version = client.get(routes::VERSION).await.and_then(|answer| answer.read());
    let answers = version.is_ok();
    let daemon = doctor::daemon(version);
    let theirs: Report = if answers { client.get(routes::DOCTOR).await?.read()? } else { Report::default() };
    let report = doctor::merge(daemon, theirs, doctor::checks(&doctor::Host::look()));
    if to.is_table() {
        to.text(&render::report(&report))?;
    } else {
        to.line(&serde_json::to_string(&report)?)?;
    }
    Ok(if is_well(&report) { Code::Ok } else { Code::Failed })
}
