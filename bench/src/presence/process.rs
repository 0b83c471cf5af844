//! A process that answers, and what it costs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dormouse_lab::{Lab, Namespace};
use nix::unistd::{SysconfVar, sysconf};

use super::{ASKER, PREFIX, address, sender::CORE, stand::Said};

/// How long thousands of sleepers may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A surrogate at work on the switch, on all cores but the sender's.
#[derive(Debug)]
pub(super) struct StandIn {
    child: Child,
    input: ChildStdin,
    said: Receiver<Said>,
    /// From the program's start until it stood in for all.
    pub(super) ready_after: Duration,
    /// The same by its own account, from the surrogate's start.
    pub(super) took: Duration,
}

impl StandIn {
    pub(super) fn start(switch: &Namespace, sleepers: u32) -> Result<Self> {
        let start = Instant::now();
        let mut command = switch.command("taskset");
        command.arg("--cpu-list").arg(other_cores()?).arg(std::env::current_exe()?);
        command.args(["stand-in", "--bridge", Lab::BRIDGE, "--sleepers"]).arg(sleepers.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no stdin")?;
        let output = child.stdout.take().context("no stdout")?;
        let (tell, said) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|said| tell.send(said))
        });
        let mut stand_in = Self { child, input, said, ready_after: Duration::ZERO, took: Duration::ZERO };
        let Said::Ready { took_ms } = stand_in.next(PATIENCE)?.context("it does not get ready")? else {
            bail!("it speaks before it is ready");
        };
        stand_in.ready_after = start.elapsed();
        stand_in.took = Duration::from_secs_f64(took_ms / 1e3);
        Ok(stand_in)
    }

    /// What it says next; `None` if it says nothing for so long.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<Said>> {
        match self.said.recv_timeout(patience) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the stand-in has ended: {}", self.child.wait()?),
        }
    }

    /// Has it stand in for one anew.
    pub(super) fn again(&mut self, sleeper: u32) -> Result<()> {
        writeln!(self.input, "{sleeper}")?;
        while self.next(PATIENCE)?.context("it does not stand in anew")? != Said::Again {}
        Ok(())
    }

    /// Processor time so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        process_cpu(self.child.id())
    }

    /// Memory of its own, in bytes: not what it shares with other processes of its program.
    pub(super) fn memory(&self) -> Result<u64> {
        process_memory(self.child.id())
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The kernel of a host that has the sleepers' addresses, behind a port of the same bridge.
#[derive(Debug)]
pub(super) struct Host {
    holder: Child,
    pub(super) mac: [u8; 6],
}

impl Host {
    pub(super) const MAC: [u8; 6] = [0x52, 0x54, 2, 0, 0, 1];

    pub(super) fn start(switch: &Namespace, asker_mac: [u8; 6], addresses: u32) -> Result<Self> {
        let holder = switch.command("unshare").args(["--net", "sleep", "infinity"]).spawn()?;
        let host = Self { holder, mac: Self::MAC };
        host.wait_for_namespace()?;
        let pid = host.holder.id();
        let mac = Self::MAC.map(|octet| format!("{octet:02x}")).join(":");
        switch.ip(&format!(
            "link add k0 type veth peer name k1 address {mac} netns {pid}\n\
             link set k0 master {}\n\
             link set k0 up\n",
            Lab::BRIDGE
        ))?;
        let asker = asker_mac.map(|octet| format!("{octet:02x}")).join(":");
        let mut lines = String::from("link set k1 up\n");
        for n in 0..addresses {
            lines += &format!("addr add {}/{PREFIX} dev k1\n", address(n));
        }
        lines += &format!("neigh add {ASKER} lladdr {asker} nud permanent dev k1\n");
        let mut ip = std::process::Command::new("nsenter");
        ip.args(["--net", "--target"]).arg(pid.to_string()).args(["ip", "-batch", "-"]);
        let mut child = ip.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(lines.as_bytes())?;
        ensure!(child.wait()?.success(), "the host does not get its addresses");
        Ok(host)
    }

    /// `unshare` has to have come to its new namespace.
    fn wait_for_namespace(&self) -> Result<()> {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
        let ours = of("self")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = self.holder.id().to_string();
        while fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() != "sleep" || of(&pid)? == ours {
            ensure!(Instant::now() < deadline, "the host has no namespace of its own");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn other_cores() -> Result<String> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > 1, "a core for the sender and one for who answers are needed");
    let others = (0..cores).filter(|core| *core != CORE).map(|core| core.to_string());
    // One core answers, however many there are.
    Ok(others.take(1).collect())
}

/// Busy time of all processors so far, whoever was.
pub(super) fn machine_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no processors")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal
    let busy: u64 = ticks.iter().take(8).sum::<u64>() - ticks[3] - ticks[4] - ticks[7];
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_secs(busy) / u32::try_from(a_second)?)
}

/// Processor time of a process so far.
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("a strange stat")?.1;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_secs(ticks) / u32::try_from(a_second)?)
}

/// Anonymous memory of a process, in bytes.
pub(crate) fn process_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
