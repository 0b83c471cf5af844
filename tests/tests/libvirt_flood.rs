//! Broadcasts flood the bridge while a domain of libvirt falls asleep and wakes: none arrives twice.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, ROOMY, TCP_ONLY};
use dormouse_lab::{Domain, Guest, api::MachineState};
use std::net::Ipv4Addr;

/// Datagrams a second: so many that dozens come within each step of a wake, and no more than a guest without
/// KVM reads.
const RATE: u32 = 500;

#[test]
fn a_flood_of_broadcasts_is_doubled_by_no_wake() {
    let guest = Guest::new("web", 2).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = DomainScene::boot("lv-flood", ROOMY, Domain::new(guest));
    scene.speaks();
    let before = scene.before();
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    let stream = scene.client.udp_stream(Ipv4Addr::new(10, 9, 0, 255), RATE, 100).unwrap();
    for depth in ["saved", "paused", "saved"] {
        let mark = scene.mark();
        scene.sleep_at(depth);
        scene.page();
        // What was held has come: it could have come twice.
        let awake = scene.entered(mark, MachineState::Active);
        assert!(awake.figures["replayed_frames"] >= 1.0, "{depth}: {awake:?}");
    }
    let sent = stream.stop().datagrams;
    // How many broadcasts are held for a sleeper is limited: some of so many are lost.
    let stats = scene.settled_sink(sent);
    assert_eq!((stats.duplicates, stats.datagrams), (0, stats.received), "{sent} sent: {stats:?}");
    assert_eq!(scene.before(), before);
}
