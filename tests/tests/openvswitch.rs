//! A machine on a bridge of Open vSwitch's, with the userspace datapath.
//!
//! That datapath does not complete checksums, so that a guest with offloads speaks TCP to nobody there:
//! this test asks by ICMP. Streams are tested without a guest, on both datapaths, by
//! `crates/surrogate/tests/bridge/ovs.rs`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, SECOND, Scene};
use dormouse_lab::{Daemon, Guest, Lab, api::MachineState, wait_until};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// The switch's sockets. Its processes end with the lab's namespace.
fn rundir(lab: &Lab) -> PathBuf {
    lab.dir().join("openvswitch")
}

fn program(lab: &Lab, name: &str) -> Command {
    let mut command = lab.switch().command(name);
    command.env("OVS_RUNDIR", rundir(lab)).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(lab: &Lab, name: &str, arguments: &[&str]) {
    let status = program(lab, name).args(arguments).status().unwrap();
    assert!(status.success(), "{name} {arguments:?}");
}

fn table(lab: &Lab) -> String {
    let out = program(lab, "ovs-appctl").args(["fdb/show", "br0"]).stdout(Stdio::piped()).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// A lab whose bridge is one of Open vSwitch's.
fn switch(lab: &Lab) {
    let dir = rundir(lab);
    std::fs::create_dir(&dir).unwrap();
    let database = dir.join("conf.db");
    let database = database.to_str().unwrap();
    run(lab, "ovsdb-tool", &["create", database, "/usr/share/openvswitch/vswitch.ovsschema"]);
    let remote = format!("--remote=punix:{}/db.sock", dir.display());
    run(lab, "ovsdb-server", &[database, &remote, "--pidfile", "--detach", "--no-chdir"]);
    run(lab, "ovs-vsctl", &["--no-wait", "init"]);
    run(lab, "ovs-vswitchd", &["--pidfile", "--detach", "--no-chdir"]);
    lab.switch().ip("link del br0\n").unwrap();
    run(lab, "ovs-vsctl", &["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
    run(lab, "ovs-vsctl", &["add-port", "br0", "cl0"]);
}

/// For the guest itself: three fragments.
fn large_ping(scene: &Scene) -> bool {
    let mut ping = scene.client.namespace().command("ping");
    ping.args(["-n", "-c", "1", "-s", "4000", "-W", "60", "10.9.0.2"]).stdout(Stdio::null());
    ping.status().unwrap().success()
}

#[test]
fn a_machine_on_open_vswitch_sleeps_stays_present_and_wakes() {
    let lab = Lab::new("ovs").unwrap();
    switch(&lab);
    let dir = rundir(&lab);
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[("OVS_RUNDIR", dir.to_str().unwrap())]).unwrap();
    let mut scene = Scene::with(lab, daemon, Guest::new("web", 2));
    scene.start(&[]);
    let ip = scene.guest.ip();
    scene.client.ping(ip, 10 * SECOND).unwrap();

    scene.sleep();
    scene.wait_no_qemu();
    scene.client.forget_neighbours().unwrap();
    scene.client.ping(ip, SECOND).unwrap();
    assert_eq!(scene.state(), MachineState::Asleep);

    // The daemon is killed, and finds what it had made.
    scene.restart("");
    wait_until("an answer", LONG, || Ok(scene.pings(ip))).unwrap();
    assert_eq!(scene.state(), MachineState::Asleep);

    let mark = scene.mark();
    assert!(large_ping(&scene), "it wakes, and what woke it is replayed");
    let awake = scene.entered(mark, MachineState::Active);
    assert!(awake.figures["replayed_frames"] > 0.0, "{awake:?}");
    scene.client.ping(ip, 5 * SECOND).unwrap();

    // Nothing of it is left when it is removed.
    assert!(table(&scene.lab).contains(&scene.guest.mac()));
    scene.daemon.run(&["stop", "--force", "web"]).unwrap();
    scene.daemon.run(&["rm", "web"]).unwrap();
    let gone = || Ok(!table(&scene.lab).contains("static"));
    wait_until("the switch to have forgotten it", LONG, gone).unwrap();
}
