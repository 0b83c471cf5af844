//! A bridge of Open vSwitch's, by its own programs (ovs-vsctl(8), ovs-appctl(8), ovs-ofctl(8)).
//!
//! An address is diverted by a static entry in the bridge's MAC table (`fdb/add`, Open vSwitch
//! 2.16), and not by an OpenFlow rule: so the rules of the bridge's user hold for a sleeper as for
//! a guest, and access ports' VLANs are told apart, for both of which the action `NORMAL` sees. An
//! entry neither ages nor moves. That of a running guest stays at its tap, and goes with it.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use dormouse_types::MacAddr;
use tokio::process::Command;

use crate::{Error, Vlans};

const VSCTL: &str = "ovs-vsctl";
const APPCTL: &str = "ovs-appctl";
const OFCTL: &str = "ovs-ofctl";

/// What the programs are told of their patience, in seconds, and what they get.
const TIMEOUT: &str = "--timeout=5";
const PATIENCE: Duration = Duration::from_secs(8);
/// Whatever the bridge is set to speak.
const VERSIONS: &str = "--protocols=OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";

/// Frames without a tag on a trunk.
const NO_VLAN: u16 = 0;

/// A row of the bridge's MAC table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    port: u32,
    vlan: u16,
    mac: MacAddr,
}

/// Is there a bridge of this name? Not where Open vSwitch does not run.
pub(super) async fn has_bridge(name: &str) -> Result<bool, Error> {
    let Some(out) = call(VSCTL, &["br-exists", name]).await? else { return Ok(false) };
    match out.code {
        Some(0) => Ok(true),
        // As ovs-vsctl(8) has it.
        Some(2) => Ok(false),
        _ if out.is_not_running() => Ok(false),
        _ => Err(out.error()),
    }
}

/// The bridge that a link is a port of.
pub(super) async fn bridge_of(port: &str) -> Result<Option<String>, Error> {
    let Some(out) = call(VSCTL, &["iface-to-br", port]).await? else { return Ok(None) };
    match out.code {
        Some(0) => Ok(Some(out.stdout.trim().to_owned())),
        _ if out.stderr.contains("no interface named") || out.is_not_running() => Ok(None),
        _ => Err(out.error()),
    }
}

pub(super) async fn join(bridge: &str, port: &str) -> Result<(), Error> {
    run(VSCTL, &["--may-exist", "add-port", bridge, port]).await.map(drop)
}

/// Takes a port out, whether its link is there or not.
pub(super) async fn leave(bridge: &str, port: &str) -> Result<(), Error> {
    run(VSCTL, &["--if-exists", "del-port", bridge, port]).await.map(drop)
}

/// Has all multicast sent to a port, even if the bridge looks for who wants it.
pub(super) async fn listen(port: &str) -> Result<(), Error> {
    let all = ["other_config:mcast-snooping-flood=true", "other_config:mcast-snooping-flood-reports=true"];
    run(VSCTL, &["set", "port", port, all[0], all[1]]).await.map(drop)
}

pub(super) async fn flood(bridge: &str, port: &str, on: bool) -> Result<(), Error> {
    let how = if on { "flood" } else { "no-flood" };
    run(OFCTL, &[VERSIONS, "mod-port", bridge, port, how]).await.map(drop)
}

/// The VLANs that a port is in; `None` for a trunk of all, and for a port that is not there.
pub(super) async fn vlans(port: &str) -> Result<Option<Vlans>, Error> {
    let query = ["--if-exists", "--format=json", "--columns=tag,trunks,vlan_mode", "list", "port", port];
    let said = run(VSCTL, &query).await?;
    Ok(serde_json::from_str(&said).ok().and_then(|table| read_vlans(&table)))
}

/// Has the bridge send frames for an address to a port, and waits until it does: the switch's own
/// threads learn of it by and by.
pub(super) async fn point(
    bridge: &str,
    mac: MacAddr,
    vlans: Option<&Vlans>,
    port: &str,
) -> Result<(), Error> {
    let mac = mac.to_string();
    for vlan in vlans.map_or_else(|| vec![NO_VLAN], |vlans| vlans.all().collect()) {
        run(APPCTL, &["fdb/add", bridge, port, &vlan.to_string(), &mac]).await?;
    }
    run(APPCTL, &["revalidator/wait"]).await.map(drop)
}

/// The addresses that a port has entries for.
pub(super) async fn pointed(bridge: &str, port: &str) -> Result<BTreeSet<MacAddr>, Error> {
    let number = run(VSCTL, &["get", "interface", port, "ofport"]).await?;
    let number: Option<u32> = number.trim().parse().ok();
    let rows = rows(bridge).await?.into_iter();
    Ok(rows.filter(|row| Some(row.port) == number).map(|row| row.mac).collect())
}

/// Removes an address's entries.
pub(super) async fn forget(bridge: &str, mac: MacAddr) -> Result<(), Error> {
    for row in rows(bridge).await?.into_iter().filter(|row| row.mac == mac) {
        run(APPCTL, &["fdb/del", bridge, &row.vlan.to_string(), &mac.to_string()]).await?;
    }
    Ok(())
}

async fn rows(bridge: &str) -> Result<Vec<Row>, Error> {
    Ok(run(APPCTL, &["fdb/show", bridge]).await?.lines().filter_map(read_row).collect())
}

/// A static row of `fdb/show`: `port  VLAN  MAC  Age`.
fn read_row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    let (port, vlan, mac, age) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let row = || Some(Row { port: port.parse().ok()?, vlan: vlan.parse().ok()?, mac: mac.parse().ok()? });
    (age == "static").then(row).flatten()
}

/// Columns `tag`, `trunks` and `vlan_mode` of the table Port, ovs-vswitchd.conf.db(5).
fn read_vlans(table: &serde_json::Value) -> Option<Vlans> {
    let row = table.get("data")?.get(0)?;
    let tag = row.get(0).and_then(number);
    let trunks: BTreeSet<u16> = match row.get(1)? {
        one @ serde_json::Value::Number(_) => number(one).into_iter().collect(),
        set => set.get(1)?.as_array()?.iter().filter_map(number).collect(),
    };
    let mode = row.get(2).and_then(serde_json::Value::as_str);
    match (tag, mode) {
        (Some(tag), None | Some("access")) => Some(Vlans::access(tag)),
        (Some(tag), Some(mode)) => {
            let mut vlans = Vlans { native: Some(tag), tagged: trunks, ..Vlans::default() };
            vlans.tagged.remove(&tag);
            match mode {
                "native-tagged" => vlans.tagged.insert(tag),
                _ => vlans.untagged.insert(tag),
            };
            Some(vlans)
        }
        (None, _) if trunks.is_empty() => None,
        (None, _) => {
            let mut vlans = Vlans { tagged: trunks, ..Vlans::default() };
            if vlans.tagged.remove(&NO_VLAN) {
                vlans.native = Some(NO_VLAN);
                vlans.untagged.insert(NO_VLAN);
            }
            Some(vlans)
        }
    }
}

fn number(value: &serde_json::Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// What a program said, and how it ended.
struct Output {
    what: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Output {
    /// Open vSwitch is installed, and that is all.
    fn is_not_running(&self) -> bool {
        self.stderr.contains("database connection failed")
    }

    fn error(self) -> Error {
        let said = if self.stderr.trim().is_empty() { self.stdout } else { self.stderr };
        Error::OpenVSwitch { what: self.what, said: said.trim().replace('\n', "; ") }
    }
}

/// Runs a program that must succeed, and gives what it printed.
async fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let what = || format!("{program} {}", arguments.join(" "));
    let missing = || Error::OpenVSwitch { what: what(), said: format!("there is no program {program}") };
    let out = call(program, arguments).await?.ok_or_else(missing)?;
    if out.code == Some(0) { Ok(out.stdout) } else { Err(out.error()) }
}

/// Runs a program to its end; `None` if there is none.
async fn call(program: &str, arguments: &[&str]) -> Result<Option<Output>, Error> {
    let what = format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command.arg(TIMEOUT).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let failed = |said: String| Error::OpenVSwitch { what: what.clone(), said };
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err(failed(format!("it did not end within {PATIENCE:?}"))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(out)) => Ok(Some(Output {
            what,
            code: out.status.code(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_static_rows_only() {
        let table = " port  VLAN  MAC                Age\n    1     0  16:97:96:a6:29:99    0\n\
             LOCAL     0  16:97:96:a6:29:98    3\n    2    10  52:54:00:00:00:02  static\n";
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
        assert_eq!(table.lines().filter_map(read_row).collect::<Vec<_>>(), [Row { port: 2, vlan: 10, mac }]);
    }

    /// As printed by Open vSwitch 3.1: an empty set, a single value, a set.
    #[test]
    fn reads_the_vlans_of_ports() {
        let port = |tag: serde_json::Value, trunks: serde_json::Value, mode: serde_json::Value| {
            read_vlans(&json!({ "data": [[tag, trunks, mode]], "headings": ["tag", "trunks", "vlan_mode"] }))
        };
        let none = || json!(["set", []]);
        assert_eq!(port(none(), none(), none()), None);
        assert_eq!(port(json!(10), none(), none()), Some(Vlans::access(10)));
        let trunk = port(none(), json!(["set", [0, 20, 30]]), none()).unwrap();
        assert_eq!((trunk.native, trunk.all().collect::<Vec<_>>()), (Some(0), vec![0, 20, 30]));
        let one = port(none(), json!(20), json!("trunk")).unwrap();
        assert_eq!((one.native, one.tagged), (None, [20].into()));
        let native = port(json!(10), json!(["set", [10, 20]]), json!("native-untagged")).unwrap();
        assert_eq!((native.native, native.untagged, native.tagged), (Some(10), [10].into(), [20].into()));
        assert_eq!(read_vlans(&json!({ "data": [] })), None);
    }
}
