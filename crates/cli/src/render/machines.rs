//! Machines, in a list and one by one, and what came of commands.

use std::time::Duration;

use anstyle::AnsiColor;
use dormouse_api_types::{Interface, MachineDetail, MachineSummary, Outcome};
use dormouse_types::Timestamp;

use super::table::{Cell, fields, table};
use super::{BOLD, ago, clean, coloured, hold, human, state_style, state_words};

/// The table of `ls`.
pub(crate) fn list(machines: &[MachineSummary], now: Timestamp) -> String {
    let heading = ["NAME", "STATE", "PLATFORM", "SINCE", "IDLE", "MEMORY", "RESIDENT", "HOLDS", "ADDRESSES"];
    table(&heading, machines.iter().map(|machine| row(machine, now)).collect())
}

fn row(machine: &MachineSummary, now: Timestamp) -> Vec<Cell> {
    let idle = machine.idle_for_ms.map_or("-".into(), |ms| human::span(Duration::from_millis(ms)));
    vec![
        machine.name.as_str().into(),
        state(machine),
        machine.platform.as_deref().unwrap_or("-").into(),
        ago(machine.since, now).into(),
        idle.into(),
        Cell::number(human::size(machine.memory_bytes)),
        Cell::number(machine.resident_bytes.map_or("-".into(), human::size)),
        Cell::number(machine.holds.to_string()),
        words(&machine.addresses).into(),
    ]
}

fn state(machine: &MachineSummary) -> Cell {
    let words = state_words(machine.state, machine.depth);
    match machine.absent {
        None => Cell::styled(words, state_style(machine.state)),
        Some(_) => Cell::styled(format!("{words}, unanswered"), coloured(AnsiColor::Yellow)),
    }
}

/// The page of `show`.
pub(crate) fn show(machine: &MachineDetail, now: Timestamp) -> String {
    let summary = &machine.summary;
    let state = state_words(summary.state, summary.depth);
    let state = Cell::styled(
        format!("{state} since {} ({})", summary.since, ago(summary.since, now)),
        state_style(summary.state),
    );
    let failure = machine.failure.as_ref();
    let red = coloured(AnsiColor::Red);
    let failed = failure.map(|f| Cell::styled(format!("while {}: {}", f.during, f.why), red));
    let idle = summary.idle_for_ms.map(|ms| human::span(Duration::from_millis(ms)).into());
    let console = machine.console.as_ref().map(|path| path.display().to_string().into());
    let abilities = &machine.abilities;
    // A domain's files are named by its definition.
    let is_domain = summary.platform.as_deref() == Some("libvirt");
    let base = (!is_domain).then(|| machine.base.display().to_string().into());
    let yellow = |why: &String| Cell::styled(why.clone(), coloured(AnsiColor::Yellow));
    let absent = summary.absent.as_ref().map(yellow);
    let unreachable = machine.unreachable.as_ref().map(yellow);
    let page = fields(&[
        ("state", vec![state]),
        ("platform", summary.platform.iter().map(Cell::from).collect()),
        ("unreachable", unreachable.into_iter().collect()),
        ("unanswered", absent.into_iter().collect()),
        ("failed", failed.into_iter().collect()),
        ("owner", machine.owner.iter().map(Cell::from).collect()),
        ("labels", machine.labels.iter().map(|(key, value)| format!("{key}={value}").into()).collect()),
        ("idle for", idle.into_iter().collect()),
        ("memory", vec![memory(summary).into()]),
        ("standing by", summary.standby_bytes.map(|bytes| human::size(bytes).into()).into_iter().collect()),
        ("on disk", vec![human::size(machine.disk_bytes).into()]),
        ("process", machine.pid.map(|pid| pid.to_string().into()).into_iter().collect()),
        ("interfaces", machine.interfaces.iter().map(|i| interface(i).into()).collect()),
        ("holds", machine.hold_list.iter().map(|h| hold(h, now).into()).collect()),
        ("depths", vec![words(&abilities.depths).into()]),
        ("obstacles", abilities.obstacles.iter().map(Cell::from).collect()),
        ("console", console.into_iter().collect()),
        ("files in", base.into_iter().collect()),
    ]);
    format!("{BOLD}{}{BOLD:#}\n{page}", summary.name)
}

fn memory(summary: &MachineSummary) -> String {
    let memory = human::size(summary.memory_bytes);
    match summary.resident_bytes {
        Some(bytes) => format!("{memory}, {} of the host's", human::size(bytes)),
        None => memory,
    }
}

fn interface(interface: &Interface) -> String {
    let tap = interface.tap.as_ref().map(|tap| format!(" by {tap}")).unwrap_or_default();
    format!("{} in {}{tap}: {}", interface.mac, interface.bridge, words(&interface.addresses))
}

fn words<T: ToString>(values: &[T]) -> String {
    let words: Vec<_> = values.iter().map(T::to_string).collect();
    if words.is_empty() { "-".into() } else { words.join(" ") }
}

/// The line that a command ends with.
pub(crate) fn outcome(outcome: &Outcome, waited: bool) -> String {
    let style = state_style(outcome.state);
    let state = state_words(outcome.state, outcome.depth);
    let took = if waited {
        format!(" in {}", human::span(Duration::from_millis(outcome.took_ms)))
    } else {
        String::new()
    };
    let hold = outcome.hold.map(|id| format!(", hold #{id}")).unwrap_or_default();
    let detail = match outcome.detail.as_str() {
        "" => String::new(),
        detail => format!(": {}", clean(detail)),
    };
    format!("{BOLD}{}{BOLD:#} {style}{state}{style:#}{took}{hold}{detail}\n", outcome.machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::{Abilities, Failure, Hold, MachineState};
    use dormouse_types::Depth;

    const NOW: Timestamp = Timestamp(1_795_245_600_000_000_000);

    fn at(seconds_ago: u64) -> dormouse_api_types::Time {
        Timestamp(NOW.0 - seconds_ago * 1_000_000_000).into()
    }

    fn summary(name: &str, state: MachineState, depth: Option<Depth>) -> MachineSummary {
        MachineSummary {
            name: name.parse().unwrap(),
            state,
            depth,
            since: at(192),
            platform: Some("qemu".into()),
            memory_bytes: 1 << 30,
            resident_bytes: Some(0),
            standby_bytes: None,
            absent: None,
            idle_for_ms: None,
            holds: 0,
            addresses: vec!["10.9.0.2".parse().unwrap(), "fd77::2".parse().unwrap()],
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_list() {
        let awake = MachineSummary {
            platform: Some("libvirt".into()),
            resident_bytes: Some(596 << 20),
            idle_for_ms: Some(61_000),
            holds: 2,
            addresses: vec![],
            ..summary("database", MachineState::Active, None)
        };
        let text = list(&[summary("web", MachineState::Asleep, Some(Depth::Saved)), awake], NOW);
        let expected = "\
NAME      STATE           PLATFORM  SINCE       IDLE    MEMORY  RESIDENT  HOLDS  ADDRESSES
web       asleep (saved)  qemu      3m 12s ago  -      1.0 GiB       0 B      0  10.9.0.2 fd77::2
database  active          libvirt   3m 12s ago  1m 1s  1.0 GiB   596 MiB      2  -
";
        assert_eq!(plain(&text), expected);
    }

    #[test]
    fn a_page() {
        let machine = MachineDetail {
            summary: MachineSummary { holds: 1, ..summary("web", MachineState::Failed, None) },
            failure: Some(Failure { during: "load".into(), why: "no space\x07".into(), state_kept: true }),
            unreachable: Some("its platform cannot be asked since today".into()),
            owner: Some("alice".into()),
            labels: [("project".into(), "shop".into())].into(),
            toml: String::new(),
            base: "/srv/web".into(),
            pid: Some(42),
            disk_bytes: 2048,
            console: Some("/var/lib/dormouse/web/console".into()),
            interfaces: vec![Interface {
                mac: "52:54:00:00:00:02".parse().unwrap(),
                bridge: "br0".into(),
                tap: Some("dm0".into()),
                addresses: vec![],
            }],
            hold_list: vec![Hold { id: 7, reason: "backup".into(), since: at(60), until: None }],
            abilities: Abilities {
                depths: vec![Depth::Paused, Depth::Saved],
                obstacles: vec!["off: the guest does not answer ACPI".into()],
                lazy_memory: true,
            },
        };
        let expected = "\
web
  state        failed since 2026-11-21T07:16:48.000Z (3m 12s ago)
  platform     qemu
  unreachable  its platform cannot be asked since today
  failed       while load: no space\\u{7}
  owner        alice
  labels       project=shop
  memory       1.0 GiB, 0 B of the host's
  on disk      2.0 KiB
  process      42
  interfaces   52:54:00:00:00:02 in br0 by dm0: -
  holds        #7 \"backup\", placed 1m ago, until released
  depths       paused saved
  obstacles    off: the guest does not answer ACPI
  console      /var/lib/dormouse/web/console
  files in     /srv/web
";
        assert_eq!(plain(&show(&machine, NOW)), expected);
        let platform = Some("libvirt".into());
        let domain =
            MachineDetail { summary: MachineSummary { platform, ..machine.summary.clone() }, ..machine };
        assert!(!plain(&show(&domain, NOW)).contains("files in"));
    }

    #[test]
    fn an_outcome() {
        let mut done = Outcome {
            machine: "web".parse().unwrap(),
            state: MachineState::Asleep,
            depth: Some(Depth::Saved),
            took_ms: 8,
            hold: None,
            detail: String::new(),
        };
        assert_eq!(plain(&outcome(&done, true)), "web asleep (saved) in 8 ms\n");
        assert_eq!(plain(&outcome(&done, false)), "web asleep (saved)\n");
        (done.hold, done.detail) = (Some(3), "was asleep\n".into());
        assert_eq!(plain(&outcome(&done, true)), "web asleep (saved) in 8 ms, hold #3: was asleep\\n\n");
    }
}
