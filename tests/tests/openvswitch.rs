//! A machine on a bridge of Open vSwitch's, with the userspace datapath.
//!
//! That datapath does not complete checksums, so that a guest with offloads speaks TCP to nobody there:
//! this test asks by ICMP. Streams are tested without a guest, on both datapaths, by
//! `crates/surrogate/tests/bridge/ovs.rs`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, OpenVSwitch, Scene};
use dormouse_lab::{Daemon, Guest, Lab, api::MachineState, wait_until};

#[test]
fn a_machine_on_open_vswitch_sleeps_stays_present_and_wakes() {
    let lab = Lab::new("ovs").unwrap();
    let switch = OpenVSwitch::start(&lab);
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[switch.environment()]).unwrap();
    let mut scene = Scene::with(lab, daemon, Guest::new("web", 2));
    scene.start(&[]);
    let ip = scene.guest.ip();
    scene.sleeps_and_answers_pings();

    // The daemon is killed, and finds what it had made.
    scene.restart("");
    wait_until("an answer", LONG, || Ok(scene.pings(ip))).unwrap();
    assert_eq!(scene.state(), MachineState::Asleep);

    scene.wakes_at_a_large_ping();

    // Nothing of it is left when it is removed.
    assert!(switch.table().contains(&scene.guest.mac()));
    scene.daemon.run(&["stop", "--force", "web"]).unwrap();
    scene.daemon.run(&["rm", "web"]).unwrap();
    let gone = || Ok(!switch.table().contains("static"));
    wait_until("the switch to have forgotten it", LONG, gone).unwrap();
}
