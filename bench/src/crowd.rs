//! A whole daemon with thousands of machines asleep: one that really sleeps, and its copies, which
//! share its saved state and are never woken.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse_lab::{Daemon, Guest, Lab, api::MachineState, guest::Image};
use dormouse_registry::{Change, Expect, Record, Redb, Registry, Transaction};
use dormouse_sys::{Batch, PacketSocket, VnetHdr};
use dormouse_types::{MacAddr, MachineName};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    presence::{address, frames, mac},
    report::Table,
    stats::millis,
};

const TEMPLATE: &str = "template";
/// A bridge has at most 1024 ports, as many as machines that have run.
const A_BRIDGE: u32 = 1000;
/// Of so many machines one is asked for, and the last one of each bridge.
const ASKED: u32 = 50;
/// Who asks.
const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Before it is asked again.
const AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(600);
const REST: Duration = Duration::from_secs(10);
/// Records written at once.
const BATCH: usize = 500;

/// Measures with each number of machines.
pub(crate) fn measure(image: &Image, machines: &[u32]) -> Result<Table> {
    let mut table = Table::new(&[
        "machines asleep",
        "first start to the last one answered for, ms",
        "after kill -9, ms",
        "memory of the daemon",
        "for each",
        "busy at rest, of one core",
    ]);
    let mut base = None;
    for &count in [1].iter().chain(machines) {
        eprintln!("crowd: {count} machines");
        let figures = one(image, count)?;
        let base = *base.get_or_insert(figures.memory);
        if count == 1 {
            continue;
        }
        let each = figures.memory.saturating_sub(base) / u64::from(count - 1);
        table.push(vec![
            count.to_string(),
            millis(figures.first),
            millis(figures.again),
            format!("{:.1} MiB", kib(figures.memory) / 1024.0),
            format!("{:.1} KiB", kib(each)),
            format!("{:.2} %", 100.0 * figures.busy),
        ]);
    }
    Ok(table)
}

struct Figures {
    first: Duration,
    again: Duration,
    memory: u64,
    busy: f64,
}

fn one(image: &Image, count: u32) -> Result<Figures> {
    let lab = Lab::new("crowd")?;
    let mut daemon = Daemon::start(&lab)?;
    let guest = Guest::new(TEMPLATE, 2);
    daemon.boot(&lab, image, &guest)?;
    daemon.sleep(TEMPLATE)?;
    daemon.kill9()?;
    multiply(&lab, &daemon, &guest, count)?;
    let first = start(&lab, &mut daemon, count)?;
    daemon.kill9()?;
    let again = start(&lab, &mut daemon, count)?;
    let busy = || process_time(&daemon);
    let before = busy()?;
    thread::sleep(REST);
    let busy = (busy()? - before).as_secs_f64() / REST.as_secs_f64();
    Ok(Figures { first, again, memory: memory(&daemon)?, busy })
}

/// Copies the sleeping template until there are `count` machines.
fn multiply(lab: &Lab, daemon: &Daemon, guest: &Guest, count: u32) -> Result<()> {
    let bridges = (1..=count / A_BRIDGE).map(|n| {
        format!("link add {0} type bridge stp_state 0 forward_delay 0\nlink set {0} up\n", bridge(n))
    });
    lab.switch().ip(&bridges.collect::<String>())?;
    let machines = daemon.state_dir().join("machines");
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let registry = Redb::open(&daemon.state_dir())?;
        let entries = registry.load().await?;
        let entry = entries.into_iter().find(|entry| entry.name.as_str() == TEMPLATE);
        let (_, template) = entry.context("the template is not in the registry")?.record?;
        let mut batch = Transaction::default();
        for n in 1..count {
            let copy = copy_of(&template, guest, n)?;
            link(&machines.join(TEMPLATE), &machines.join(copy.name.as_str()))?;
            batch = batch.and(Expect::Absent, Change::Put(Box::new(copy)));
            if batch.changes().count() == BATCH || n + 1 == count {
                registry.commit(std::mem::take(&mut batch)).await?;
            }
        }
        anyhow::Ok(())
    })?;
    // Whoever wrote it may still be closing it.
    let registry = File::open(daemon.state_dir().join(dormouse_registry::FILE_NAME))?;
    Flock::lock(registry, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    Ok(())
}

fn bridge(n: u32) -> String {
    if n == 0 { Lab::BRIDGE.to_owned() } else { format!("br{n}") }
}

/// The nth copy: its names and addresses differ.
fn copy_of(template: &Record, guest: &Guest, n: u32) -> Result<Record> {
    let name: MachineName = format!("copy{n}").parse()?;
    let mac = MacAddr(mac(n)).to_string();
    let file = template.file.replace(&guest.mac(), &mac);
    let file = file.replace(&format!("name = \"{TEMPLATE}\""), &format!("name = \"{name}\""));
    let ours = format!("bridge = \"{}\"", Lab::BRIDGE);
    let theirs = format!("bridge = \"{}\"\naddresses = [\"{}\"]", bridge(n / A_BRIDGE), address(n));
    let file = file.replace(&ours, &theirs);
    Ok(Record { name, file, learned: BTreeMap::default(), ..template.clone() })
}

/// All files of a machine's directory under other names: they are only ever read.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for name in ["ram", "state", "state.json"] {
        fs::hard_link(from.join(name), to.join(name)).with_context(|| format!("link {name}"))?;
    }
    Ok(())
}

/// Starts the daemon and waits until it says that it found all machines, asleep, and they answer.
fn start(lab: &Lab, daemon: &mut Daemon, count: u32) -> Result<Duration> {
    let start = Instant::now();
    daemon.spawn()?;
    let socket = daemon.socket();
    while !is_up(&socket) {
        ensure!(!daemon.has_ended()?, "dormoused ended at start:\n{}", daemon.log());
        ensure!(start.elapsed() < PATIENCE, "dormoused does not answer");
        thread::sleep(Duration::from_millis(5));
    }
    lab.switch().run(|| (0..=count / A_BRIDGE).try_for_each(|number| ask(number, count, start)))??;
    let took = start.elapsed();
    let machines: serde_json::Value = daemon.json(&["ls"])?;
    let machines = machines.as_array().context("ls is no list")?;
    let asleep = machines.iter().filter(|machine| machine["state"] == MachineState::Asleep.as_str());
    ensure!(asleep.count() == usize::try_from(count)?, "not all machines are asleep:\n{}", daemon.log());
    Ok(took)
}

/// Asks on a bridge for the addresses of machines there until all have answered.
fn ask(number: u32, count: u32, start: Instant) -> Result<()> {
    // The first machine is the template, which has its own address.
    let machines = (number * A_BRIDGE).max(1)..((number + 1) * A_BRIDGE).min(count);
    let last = machines.end.saturating_sub(1);
    let asked = machines.filter(|n| n % ASKED == 0 || *n == last);
    let mut silent: BTreeMap<[u8; 6], u32> = asked.map(|n| (mac(n), n)).collect();
    let socket = PacketSocket::open_receive(&bridge(number), 1 << 20)?;
    let mut batch = Batch::new(64, 128);
    while !silent.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "nobody answers for {:?}", silent.values());
        for n in silent.values() {
            socket.send(&VnetHdr::PLAIN, &frames::arp_request(ASKER, *n))?;
        }
        thread::sleep(AGAIN);
        while socket.receive(&mut batch)? > 0 {
            let answers = batch.frames().filter(|frame| frame.bytes.get(..6) == Some(&ASKER));
            for answer in answers {
                silent.retain(|mac, _| answer.bytes.get(6..12) != Some(mac));
            }
        }
    }
    Ok(())
}

/// It answers only once all machines are found.
fn is_up(socket: &Path) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut [0; 5])
    };
    ask().is_ok()
}

fn process_time(daemon: &Daemon) -> Result<Duration> {
    crate::presence::process_cpu(daemon.pid().context("no daemon")?)
}

fn memory(daemon: &Daemon) -> Result<u64> {
    crate::presence::process_memory(daemon.pid().context("no daemon")?)
}

#[allow(clippy::cast_precision_loss)]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
