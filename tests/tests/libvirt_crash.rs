//! The daemon of a domain of libvirt dies at every step of sleep and wake, and loses no machine.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{Crashes, DomainScene, FAST_SAMPLES};
use dormouse_lab::{Domain, Guest};

/// In the order of a platform whose interfaces come with the process, and whose save ends it.
const SLEEP_SAVED: [&str; 7] =
    ["journal:settling", "capture", "drain", "pause", "stand-in", "save", "journal:asleep"];
const WAKE_SAVED: [&str; 6] = ["load", "journal:waking", "prepare", "resume", "release", "journal:active"];
/// It suspends itself once: the lab's firmware brings its guest back from S3 without what it needs for another.
const UNTIL_SUSPENDED: [&str; 4] = ["capture:after", "drain:after", "suspend:before", "suspend:after"];

fn domain(depth: &str) -> Domain {
    Domain::new(Guest::new("web", 2).dirty(10).set("sleep.depth", depth))
}

#[test]
fn while_it_is_saved() {
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-s", FAST_SAMPLES, domain("saved"));
    Crashes::of(scene).at_each_edge(&SLEEP_SAVED, "sleep");
    drop(libvirtd);
}

#[test]
fn while_it_is_started() {
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-l", FAST_SAMPLES, domain("saved"));
    Crashes::of(scene).at_each_edge(&WAKE_SAVED, "wake");
    drop(libvirtd);
}

#[test]
fn while_it_suspends_itself() {
    let domain = domain("pmsuspended").agent().suspend_to_memory();
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-p", FAST_SAMPLES, domain);
    let mut crashes = Crashes::of(scene);
    for step in UNTIL_SUSPENDED {
        crashes.dies_at(step, "sleep");
    }
    assert_eq!(libvirtd.domstate("web").unwrap(), "running");
}
