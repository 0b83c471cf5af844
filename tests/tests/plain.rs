//! The handover without eBPF, for kernels and users that do not allow it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{ROOMY, SECOND, Scene, TCP_ONLY};
use dormouse_lab::{
    Guest,
    api::{MachineState, Report},
};
use std::{net::IpAddr, thread};

#[test]
fn nothing_is_lost_or_doubled_without_ebpf() {
    let config = format!("{ROOMY}[network]\nhandover = \"plain\"\n");
    let guest = Guest::new("web", 2).dirty(10).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = Scene::boot("plain", &config, guest);
    let report: Report = serde_json::from_str(&doctor(&scene)).unwrap();
    assert!(report.checks.iter().any(|check| check.found.contains("plain")), "{report:?}");
    for to in [IpAddr::from(scene.guest.ip()), scene.guest.ip6().into()] {
        scene.client.reset_sink(scene.guest.ip()).unwrap();
        let stream = scene.client.udp_stream(to, 5_000, 100).unwrap();
        for _ in 0..3 {
            thread::sleep(SECOND / 4);
            let mark = scene.mark();
            scene.sleep();
            scene.wait_no_qemu();
            scene.page();
            let awake = scene.entered(mark, MachineState::Active);
            assert_eq!(awake.figures["handover_ebpf"], 0.0, "{awake:?}");
            assert!(awake.figures["replayed_frames"] > 0.0, "{awake:?}");
        }
        let sent = stream.stop();
        let stats = scene.settled_sink(sent.datagrams);
        let verdict = (stats.received, stats.lost, stats.duplicates);
        assert_eq!(verdict, (sent.datagrams, 0, 0), "{to}: {sent:?} {stats:?}");
    }
}

/// What the doctor says, whether it finds this host well or not.
fn doctor(scene: &Scene) -> String {
    scene.daemon.cli(&["-o", "json", "doctor"]).unwrap().stdout
}
