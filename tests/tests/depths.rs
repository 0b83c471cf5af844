//! Every depth of sleep, and every kind of guest that can sleep.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, ROOMY, Scene, TCP_ONLY};
use dormouse_lab::{
    Guest, HttpAnswer,
    api::{MachineDetail, MachineState},
    wait_for,
};
use std::{collections::BTreeSet, net::IpAddr};

#[test]
fn saved_and_paused() {
    let guest = Guest::new("web", 2).dirty(20).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = Scene::boot("depths", ROOMY, guest);
    let abilities = scene.daemon.show(scene.name()).unwrap().abilities;
    assert!(abilities.lazy_memory && abilities.depths.len() == 3, "{abilities:?}");
    for depth in ["paused", "saved", "paused"] {
        scene.sleeps_and_wakes(depth);
    }
}

/// Who sleeps paused is saved after a while, without being woken: its guest runs on from where it was.
#[test]
fn paused_machines_go_deeper_with_time() {
    let deeper = table([("depth", "saved".into()), ("after", "2s".into())]);
    let guest = Guest::new("web", 2).dirty(20).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let guest = guest.set("sleep.depth", "paused").set("sleep.deeper", vec![deeper]);
    let scene = Scene::boot("deeper", ROOMY, guest);
    scene.speaks();
    let before = scene.before();
    let mark = scene.mark();
    let outcome = scene.sleep();
    assert_eq!(outcome.depth.map(|depth| depth.to_string()).as_deref(), Some("paused"));
    scene.wait_no_qemu();
    let is_saved = |m: &MachineDetail| m.summary.depth.is_some_and(|depth| depth.as_str() == "saved");
    scene.daemon.wait_machine(scene.name(), "saved", LONG, is_saved).unwrap();
    assert!(scene.pings(scene.guest.ip()), "it is stood in for all the while");
    assert_eq!(scene.state(), MachineState::Asleep);
    scene.page();
    let awake = scene.entered(mark, MachineState::Active);
    assert!(awake.figures["replayed_frames"] >= 1.0, "{awake:?}");
    let after = scene.before();
    assert_eq!(after.boot_id, before.boot_id);
}

#[test]
fn off_boots_again_at_a_packet_and_the_packet_is_delivered() {
    let scene = Scene::boot("off", FAST_SAMPLES, Guest::new("web", 2).set("sleep.depth", "off"));
    scene.speaks();
    let before = scene.before();
    scene.sleep();
    scene.wait_no_qemu();
    assert!(scene.pings(scene.guest.ip()) && scene.pings(scene.guest.ip6()));
    let mark = scene.mark();
    let page = boots_and_answers(&scene);
    assert!(page.body.trim().parse::<f64>().is_ok() || !page.body.is_empty(), "{page:?}");
    scene.daemon.wait_ready(&scene.guest, 1).unwrap();
    let awake = scene.entered(mark, MachineState::Active);
    assert!(awake.figures["replayed_frames"] >= 1.0, "{awake:?}");
    assert_ne!(scene.before().boot_id, before.boot_id);
    // And again: it is no worse for it.
    scene.sleep();
    scene.daemon.wake(scene.name()).unwrap();
    scene.daemon.wait_ready(&scene.guest, 1).unwrap();
    scene.page();
}

/// The guest is on the network before its web server is: a connection may be refused until then.
#[track_caller]
fn boots_and_answers(scene: &Scene) -> HttpAnswer {
    let ask = || Ok(scene.client.http_get(scene.web(), "/cgi-bin/uptime", LONG).ok());
    wait_for("the web server", LONG, ask).unwrap().0
}

#[test]
fn memory_that_is_no_file_is_saved_as_a_whole() {
    let guest = Guest::new("web", 2).dirty(20).set("qemu.memory_backing", "anonymous");
    let scene = Scene::boot("whole", ROOMY, guest.set("wake.on", vec![TCP_ONLY.to_owned()]));
    assert!(!scene.daemon.show(scene.name()).unwrap().abilities.lazy_memory);
    scene.sleeps_and_wakes("saved");
    scene.sleeps_and_wakes("paused");
}

#[test]
fn a_microvm() {
    // It has no timer but the PIT to measure its clock by, and under TCG on a busy host it cannot.
    let guest = Guest::new("web", 2).dirty(20).kernel_option("tsc_early_khz=2000000");
    let guest = guest.set("qemu.machine", "microvm");
    let scene = Scene::boot("microvm", ROOMY, guest.set("wake.on", vec![TCP_ONLY.to_owned()]));
    scene.sleeps_and_wakes("saved");
    scene.sleeps_and_wakes("paused");
}

#[test]
fn a_guest_with_a_disk() {
    let guest = Guest::new("web", 2).with_disk().set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = Scene::boot("disk", ROOMY, guest);
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    // Half of it is only in the guest's page cache when it sleeps.
    shell.run("dd if=/dev/urandom of=/dev/vda bs=1M count=4 2>/dev/null && sync").unwrap();
    shell.run("dd if=/dev/urandom of=/dev/vda bs=1M count=4 seek=4 2>/dev/null").unwrap();
    let digest = "dd if=/dev/vda bs=1M count=8 2>/dev/null | sha256sum";
    let before = shell.run(digest).unwrap();
    scene.sleeps_and_wakes("saved");
    assert_eq!(shell.run(digest).unwrap(), before);
    shell.run("sync && echo 3 > /proc/sys/vm/drop_caches").unwrap();
    assert_eq!(shell.run(digest).unwrap(), before);
}

#[test]
fn addresses_are_learned_or_given() {
    let scene = Scene::boot("learned", FAST_SAMPLES, Guest::new("web", 2));
    let (ip, ip6) = (IpAddr::from(scene.guest.ip()), IpAddr::from(scene.guest.ip6()));
    scene.speaks();
    let knows = |m: &MachineDetail| [ip, ip6].iter().all(|a| m.summary.addresses.contains(a));
    scene.daemon.wait_machine(scene.name(), "known by its addresses", LONG, knows).unwrap();
    scene.sleep();
    scene.client.forget_neighbours().unwrap();
    assert!(scene.pings(ip) && scene.pings(ip6));
    given(scene);
}

/// A machine file with addresses is believed, whatever the guest says.
fn given(scene: Scene) {
    scene.daemon.run(&["rm", "--force", "web"]).unwrap();
    let more: IpAddr = "10.9.0.99".parse().unwrap();
    let interface = [
        ("mac", "52:54:00:00:00:02".into()),
        ("bridge", "br0".into()),
        ("addresses", toml_list(&["10.9.0.2", "fd77::2", "10.9.0.99"])),
    ];
    let guest = Guest::new("web", 2).set("interface", vec![table(interface)]);
    scene.daemon.create(&scene.lab, &scene.image, &guest).unwrap();
    scene.start(&[]);
    scene.sleep();
    scene.client.forget_neighbours().unwrap();
    let known: BTreeSet<IpAddr> = scene.daemon.show("web").unwrap().summary.addresses.into_iter().collect();
    let expected: BTreeSet<IpAddr> = [scene.guest.ip().into(), scene.guest.ip6().into(), more].into();
    assert_eq!(known, expected);
    for address in expected {
        assert!(scene.pings(address), "{address}");
    }
    assert_eq!(scene.state(), MachineState::Asleep);
}

fn toml_list(texts: &[&str]) -> toml::Value {
    texts.iter().map(|text| toml::Value::from(*text)).collect::<Vec<_>>().into()
}

fn table<const N: usize>(entries: [(&str, toml::Value); N]) -> toml::Value {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<toml::Table>().into()
}
