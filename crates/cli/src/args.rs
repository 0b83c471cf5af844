//! What can be written on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use dormouse_types::{Depth, MacAddr, MachineName, Timestamp};

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  failed, or a check of `doctor` failed
  2  the command line is wrong
  3  no such machine or hold
  4  cannot be done in the state that the machine is in
  5  the daemon cannot be reached
  6  `wake-test`: the frame would not wake the machine by itself
With several names, the status of the first that failed; the others are done all the same.";

/// Puts idle virtual machines to sleep, stands in for them, and wakes them when they are wanted.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// Socket of the daemon.
    #[arg(
        long,
        global = true,
        display_order = 901,
        env = "DORMOUSE_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        value_hint = ValueHint::FilePath,
        default_value = dormouse_api_types::DEFAULT_SOCKET
    )]
    pub(crate) socket: PathBuf,

    /// A table for people, the daemon's answers as they are, one JSON text a line, or CSV (`usage` and `simulate`).
    #[arg(
        short,
        long,
        global = true,
        display_order = 900,
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table
    )]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[value(help = None)]
    Table,
    /// For programs.
    #[value(help = None)]
    Json,
    /// For spreadsheets: what `usage` and `simulate` print.
    #[value(help = None)]
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make machines known from their files; they do not run yet.
    Create(Create),
    /// Make machines of what others have defined, or list what can be imported.
    #[command(subcommand)]
    Import(Import),
    /// Forget machines that are stopped, and domains of libvirt that run, which run on; disks stay.
    Rm(Remove),
    /// List the machines.
    Ls,
    /// Show all that is known of machines.
    Show(Names),
    /// Boot machines, or wake them.
    Start(Start),
    /// Shut machines down.
    Stop(Stop),
    /// Put machines to sleep now.
    Sleep(Sleep),
    /// Wake machines.
    Wake(Waiting),
    /// Keep machines awake; those that sleep are woken.
    Hold(Hold),
    /// Let machines sleep again.
    Release(Release),
    /// Show what happened.
    Events(Events),
    /// Say why machines are awake, what woke them, and what would wake them.
    Why(Names),
    /// Say what a frame would do to a machine that sleeps, without sending it.
    WakeTest(WakeTest),
    /// Say what machines used: time awake and asleep, wakes, memory, processor time, energy.
    Usage(Usage),
    /// Replay traces of processor use against the sleep policies; needs no daemon.
    Simulate(Simulate),
    /// Look for what stands in the way, and say how to put it right.
    Doctor(Doctor),
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; made if missing.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Machines.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<MachineName>,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    #[command(flatten)]
    pub(crate) names: Names,
    /// Do not wait until the machine has settled.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Machine files; `-` reads standard input.
    #[arg(value_name = "FILE.toml", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

/// Where from.
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Domains of libvirt; without names, list them and say what stands in the way.
    Libvirt(Libvirt),
}

const IMPORT: &str = "\
Nothing of a domain is changed, and virsh goes on working. A domain that runs
runs on; it goes to sleep when it is idle.

Exit status: that of the first domain that is not imported; see `dormouse --help`.";

#[derive(Debug, Args)]
#[command(after_help = IMPORT)]
pub(crate) struct Libvirt {
    /// Domains, by name or UUID.
    #[arg(value_name = "DOMAIN", conflicts_with = "all")]
    pub(crate) domains: Vec<String>,
    /// All domains that are not machines already.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only list the domains, as without names.
    #[arg(long, conflicts_with_all = ["domains", "all", "machine", "set", "dry_run"])]
    pub(crate) list: bool,
    /// libvirt's connection, as qemu+ssh://host/system; the daemon's own when absent.
    #[arg(long, value_name = "URI", env = "LIBVIRT_DEFAULT_URI", hide_env_values = true)]
    pub(crate) uri: Option<String>,
    /// The machine's name, where it is not to be the domain's.
    #[arg(long = "as", value_name = "NAME", requires = "domains", conflicts_with = "all")]
    pub(crate) machine: Option<MachineName>,
    /// A key of the machine file, as sleep.idle_after=30m.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the machine files, and import nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Machines whose sleep to look at; the host when absent.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<MachineName>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    pub(crate) names: Names,
    /// Also machines that run, as if the power failed, and those that sleep, with their saved state.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) on: Waiting,
    /// Boot afresh; a saved state is given up, and what was in memory is lost.
    #[arg(long)]
    pub(crate) cold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) on: Waiting,
    /// Do not ask the guest: as if the power failed.
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) force: bool,
    /// How long the guest may take, as 90s.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Sleep {
    #[command(flatten)]
    pub(crate) on: Waiting,
    /// How deep; as the machine file says when absent.
    #[arg(long, value_parser = depths())]
    pub(crate) depth: Option<Depth>,
}

const HOLDING: &str = "\
With --while or a COMMAND the hold ends with this command at the latest, however that ends: killed, too.
The exit status is then that of COMMAND; 128 and the signal's number if one killed it.";

#[derive(Debug, Args)]
#[command(after_help = HOLDING)]
pub(crate) struct Hold {
    #[command(flatten)]
    pub(crate) on: Waiting,
    /// As long as this process runs, and this command waits for it.
    #[arg(long = "while", value_name = "PID", conflicts_with_all = ["span", "no_wait", "command"])]
    pub(crate) pid: Option<i32>,
    /// Runs a command once the machines are awake; the hold lasts as long as it runs.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["span", "no_wait"])]
    pub(crate) command: Vec<std::ffi::OsString>,
    /// For how long, as 2h; until released when absent.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    pub(crate) span: Option<Duration>,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) names: Names,
    /// Which hold, as `show` numbers them; all of them when absent.
    #[arg(long, value_name = "ID")]
    pub(crate) hold: Option<u64>,
}

const FRAMES: &str = "\
Frames:
  tcp|udp|sctp SRC[:PORT] > [DST]:PORT  as 'tcp 10.0.0.9:5555 > :22'
  ... flags SYN,FIN,RST,ACK,data        for tcp; SYN unless written
  icmp SRC [> DST]                      an echo request
  arp who-has ADDR tell ADDR
  magic                                 wake-on-LAN for the machine
  hex 5254...                           a whole Ethernet frame
IPv6 addresses with a port stand in brackets. DST is the machine's own
address unless written. 'vlan N' may stand before all but hex.

Exit status:
  0  it wakes the machine
  6  it is answered, held or ignored, or a program decides";

#[derive(Debug, Args)]
#[command(after_help = FRAMES)]
pub(crate) struct WakeTest {
    /// The machine, awake or asleep.
    #[arg(value_name = "NAME")]
    pub(crate) name: MachineName,
    /// The frame, in one argument.
    #[arg(value_name = "FRAME")]
    pub(crate) frame: String,
    /// The interface that it comes to, where the machine has several.
    #[arg(long, value_name = "MAC")]
    pub(crate) interface: Option<MacAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only of this machine.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<MachineName>,
    /// Go on with new ones as they happen.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those after this number.
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
}

const SINCE: &str = "\
Times:
  7d, 12h            so long ago
  2026-11-01         a day; 2026-11 the first day of a month
  monday, today      the last one, from midnight on
  2026-11-01T08:00   an instant, of the local zone unless it has an offset
They are rounded down to the hour.";

#[derive(Debug, Args)]
#[command(after_help = SINCE)]
pub(crate) struct Usage {
    /// Only these machines, also such that were removed; all when absent.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<MachineName>,
    /// From when on.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = instant)]
    pub(crate) since: Timestamp,
    /// Until when; now when absent.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) until: Option<Timestamp>,
    /// What to sum by: machine, owner, label:KEY, day, hour, or several with commas between.
    #[arg(long, value_name = "KEYS", default_value = "machine")]
    pub(crate) by: String,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    crate::span::instant(text, &jiff::Zoned::now())
}

const SIMULATE: &str = "\
Traces:
  A line for each machine: its name, and then for each interval the use of its
  processors in percent of one: web,3,0,41. Several files are consecutive days
  of the machines with the same names.

Parameters (--set):
  idle_after   fixed: sleep after so much idle time; hysteresis: never sooner
  idle_most    hysteresis: never later
  wake_cost    predictive: a wake that a user waits for is worth so much time
               awake in vain
  lead         predictive: how long before the machine may be needed it is woken
  idle_least   predictive: never sleep sooner";

#[derive(Debug, Args)]
#[command(after_help = SIMULATE)]
pub(crate) struct Simulate {
    /// Traces; `-` reads standard input.
    #[arg(value_name = "TRACE.csv", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) traces: Vec<PathBuf>,
    /// Which policy: fixed, hysteresis, predictive or all; may be given several times.
    #[arg(long, value_name = "POLICY", default_value = "all", value_parser = ["all", "fixed", "hysteresis", "predictive"])]
    pub(crate) policy: Vec<String>,
    /// A parameter; with several values every policy that heeds it is tried with each.
    #[arg(long = "set", value_name = "KEY=VALUE[,VALUE...]")]
    pub(crate) set: Vec<String>,
    /// A machine's use begins at so much of one processor, and ends below half of it, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    pub(crate) cpu_below: f64,
    /// From a value to the next.
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = interval)]
    pub(crate) interval: Duration,
    /// When the first trace begins, in local time: it matters to policies that learn hours of the week.
    #[arg(long, value_name = "TIME", default_value = "1970-01-05 00:00:00", value_parser = time)]
    pub(crate) start: Timestamp,
    /// Learn from so much of the beginning of each machine without counting it, as 1d.
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = span)]
    pub(crate) warm_up: Duration,
    /// From the decision that a machine sleeps until it is asleep: it is awake meanwhile.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = transition)]
    pub(crate) sleep_takes: Duration,
    /// From what wakes a machine until it runs: who comes meanwhile waits, which is a user hit.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = transition)]
    pub(crate) wake_takes: Duration,
    /// The traces are of different machines, even where names are the same.
    #[arg(long)]
    pub(crate) separate: bool,
    /// Draw hours asleep, user hits, and the day of some machines.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) svg: Option<PathBuf>,
}

/// The depths by their names, so that help and completions list them.
fn depths() -> impl TypedValueParser<Value = Depth> {
    PossibleValuesParser::new(Depth::ALL.map(Depth::as_str))
        .try_map(|text| Depth::ALL.into_iter().find(|depth| depth.as_str() == text).ok_or("no such depth"))
}

fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a span of time as 90s, 10m or 1h 30m".into())
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if allowed.contains(&span) { Ok(span) } else { Err("write a span of time from 1s to 1d".into()) }
}

fn transition(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(3600);
    span(text)
        .ok()
        .filter(|span| *span <= most)
        .ok_or_else(|| "write a span of time up to 1h, as 300ms or 5s".into())
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let number = number.filter(|number: &f64| *number > 0.0 && *number <= 25_600.0);
    number.ok_or_else(|| "write percent of one processor, more than 0, as 10 or 2.5".into())
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339_weak(&format!("{text} 00:00:00")));
    let since = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let since = since.ok_or("write a time since 1970 as \"2011-03-03 08:00:00\" or 2011-03-03")?;
    Ok(Timestamp::default() + since)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        super::Cli::command().debug_assert();
    }
}
