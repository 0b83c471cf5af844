//! `dormouse-bench stand-in`: the surrogate in a process of its own, with sleepers that never wake.
//!
//! It says on stdout, in JSON, one thing a line: that it stands in for all, and each time that one is
//! wanted. A name on stdin has it stand in for that one anew.

use std::{io::BufRead, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use dormouse_surrogate::{Limits, Notice, Port, Settings, Sleeper, Surrogate};
use dormouse_types::{MacAddr, MachineName, WakeRule};
use futures::{StreamExt, TryStreamExt, stream};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{address, mac};

/// Sleepers taken under care at the same time, as by as many drivers.
const AT_ONCE: usize = 256;
const LIMITS: Limits = Limits { frames: 4096, bytes: 8 << 20 };

/// What the process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// All are stood in for.
    Ready {
        /// From the start of the surrogate.
        took_ms: f64,
    },
    /// A sleeper is wanted.
    Wake {
        /// Its number.
        number: u32,
        /// When it was told, on the monotonic clock.
        at_ns: u64,
    },
    /// One is stood in for anew.
    Again,
}

/// Stands in until stdin ends.
pub(crate) fn serve(bridge: &str, sleepers: u32) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(stand(bridge, sleepers))?;
    Ok(ExitCode::SUCCESS)
}

async fn stand(bridge: &str, sleepers: u32) -> Result<()> {
    let start = Instant::now();
    let (surrogate, mut notices) = Surrogate::start(Settings::default()).await?;
    let rules = vec!["tcp:22".parse::<WakeRule>()?];
    stream::iter((0..sleepers).map(|n| sleeper(bridge, n, &rules)))
        .map(|sleeper| {
            let surrogate = &surrogate;
            async move { surrogate.stand_in(&sleeper?).await.map(drop).map_err(anyhow::Error::from) }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    say(&Said::Ready { took_ms: start.elapsed().as_secs_f64() * 1e3 })?;
    let mut orders = orders();
    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(Notice::Wake { name, .. }) => {
                    let at = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
                    let at_ns = u64::try_from(std::time::Duration::from(at).as_nanos())?;
                    say(&Said::Wake { number: number(&name)?, at_ns })?;
                }
                Some(_) => {}
                None => return Ok(()),
            },
            order = orders.recv() => {
                let Some(n) = order else { return Ok(()) };
                surrogate.dismiss(&name(n)?).await?;
                surrogate.stand_in(&sleeper(bridge, n, &rules)?).await?;
                say(&Said::Again)?;
            }
        }
    }
}

fn orders() -> mpsc::UnboundedReceiver<u32> {
    let (orders, received) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let numbers = std::io::stdin().lock().lines().map_while(|line| line.ok()?.parse().ok());
        numbers.take_while(|n| orders.send(*n).is_ok()).for_each(drop);
    });
    received
}

fn say(what: &Said) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

fn name(n: u32) -> Result<MachineName> {
    Ok(format!("s{n}").parse()?)
}

fn number(name: &MachineName) -> Result<u32> {
    name.as_str().strip_prefix('s').and_then(|n| n.parse().ok()).context("a name of another's")
}

fn sleeper(bridge: &str, n: u32, rules: &[WakeRule]) -> Result<Sleeper> {
    let port = Port {
        mac: MacAddr(mac(n)),
        bridge: bridge.to_owned(),
        tap: format!("none{n}"),
        queue: None,
        addresses: vec![address(n).into()],
        configured: true,
        persona: dormouse_wire::Persona::default(),
    };
    Ok(Sleeper {
        name: name(n)?,
        ports: vec![port],
        wake: rules.to_vec(),
        ignore: Vec::new(),
        services: Vec::new(),
        externals: Vec::new(),
        policy: dormouse_wire::Policy::default(),
        will_boot: false,
        limits: LIMITS,
    })
}
