//! Machines with several interfaces, and with none.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Daemon, Guest, Lab,
    api::{MachineDetail, MachineState},
    guest::{Image, KERNEL_OPTIONS},
};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};

/// The guest's address on the second bridge.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);

/// A bridge `br1` with a second interface of the client.
fn add_bridge(lab: &Lab) {
    let client = lab.client_namespace();
    let lines = format!(
        "link add br1 type bridge stp_state 0 forward_delay 0\nlink set br1 up\n\
         link add cl1 type veth peer name eth1 netns {}\nlink set cl1 master br1 up\n",
        client.name()
    );
    lab.switch().ip(&lines).unwrap();
    client.ip("addr add 10.8.0.1/24 dev eth1\nlink set eth1 up\n").unwrap();
}

fn interfaces(list: &serde_json::Value) -> toml::Value {
    toml::Value::try_from(list).unwrap()
}

#[test]
fn a_machine_on_two_bridges_is_present_on_both_and_wakes_from_either() {
    let lab = Lab::new("two").unwrap();
    add_bridge(&lab);
    // A third one, to which nobody else is connected.
    lab.switch().ip("link add br2 type bridge stp_state 0 forward_delay 0\nlink set br2 up\n").unwrap();
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[]).unwrap();
    let list = json!([
        { "mac": "52:54:00:00:00:02", "bridge": "br0" },
        { "mac": "52:54:00:00:01:02", "bridge": "br1" },
        { "mac": "52:54:00:00:02:02", "bridge": "br2" },
    ]);
    let cmdline = format!("{KERNEL_OPTIONS} dm.ip=10.9.0.2/24,{SECOND}/24 dm.dirty=10");
    let guest = Guest::new("web", 2).set("interface", interfaces(&list)).set("qemu.cmdline", cmdline);
    let scene = Scene::with(lab, daemon, guest);
    scene.start(&[]);
    let first = scene.guest.ip();
    assert!(scene.pings(first) && scene.pings(SECOND));
    let before = scene.before();

    for door in [SECOND, first, SECOND] {
        scene.sleep();
        scene.wait_no_qemu();
        assert!(scene.pings(first) && scene.pings(SECOND));
        assert_eq!(scene.state(), MachineState::Asleep);
        let page = scene.lab.client().http_get(SocketAddr::new(door.into(), 80), "/", LONG).unwrap();
        assert_eq!(page.status, 200);
        scene.wait(MachineState::Active);
        for ip in [first, SECOND] {
            scene.lab.client().echo(ip).unwrap().say("both doors are open").unwrap();
        }
    }
    assert_eq!(scene.before(), before);
}

#[test]
fn a_machine_without_interfaces_sleeps_and_wakes_by_command() {
    let lab = Lab::new("alone").unwrap();
    let daemon = Daemon::start(&lab).unwrap();
    let image = Image::build().unwrap();
    let guest = Guest::new("alone", 3).set("interface", interfaces(&json!([])));
    daemon.boot(&lab, &image, &guest).unwrap();
    daemon.sleep("alone").unwrap();
    daemon.wait_state("alone", MachineState::Asleep, LONG).unwrap();
    daemon.wake("alone").unwrap();
    let awake = |detail: &MachineDetail| detail.summary.state == MachineState::Active && detail.pid.is_some();
    daemon.wait_machine("alone", "its process", LONG, awake).unwrap();
}
