//! A definition that others change is followed, and the domain stays the machine that it was.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, SECOND};
use dormouse_lab::{
    Domain, Guest, Lab,
    api::{MachineDetail, MachineState},
};
use std::time::Instant;

const NEW: &str = "52:54:00:00:00:0a";

/// Waits until the machine file is as it should be; an event says why it has changed.
#[track_caller]
fn rewritten(scene: &DomainScene, mark: u64, why: &str, is_so: impl Fn(&MachineDetail) -> bool) {
    scene.event(mark, why, |event| event.cause.as_ref().is_some_and(|cause| cause.contains(why)));
    let (machine, _) = scene.daemon.wait_machine(scene.name(), why, LONG, is_so).unwrap();
    assert!(machine.toml.contains("kept by its user"), "{}", machine.toml);
}

fn has_interface(machine: &MachineDetail, mac: &str) -> bool {
    machine.interfaces.iter().any(|interface| interface.mac.to_string() == mac)
}

/// `virsh edit`, by an editor that does as told.
#[track_caller]
fn edit(scene: &DomainScene, expressions: &[&str]) {
    let words: Vec<String> = expressions.iter().map(|expression| format!("-e '{expression}'")).collect();
    let mut virsh = scene.libvirtd.command(&["edit", scene.name()]);
    let out = virsh.env("VISUAL", format!("sed -i {}", words.join(" "))).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn what_others_define_is_followed() {
    let guest = Guest::new("web", 2).dirty(10).with_disk();
    let scene = DomainScene::imported(
        "lv-defined",
        FAST_SAMPLES,
        Domain::new(guest),
        &["labels.note=kept by its user"],
    );
    edited(&scene);
    renamed(&scene);
    undefined(&scene);
    attached(&scene);
    reverted(&scene);
    started_by_libvirtd(&scene);
}

/// While it runs, and with libvirt's word for it: the new interface is stood in for at once.
#[test]
fn an_interface_that_is_plugged_in_is_stood_in_for_until_it_is_plugged_out() {
    let ports = (1..=8).map(|n| format!("<controller type='pci' index='{n}' model='pcie-root-port'/>"));
    let ports = format!("<controller type='pci' index='0' model='pcie-root'/>{}", ports.collect::<String>());
    let domain = Domain::new(Guest::new("web", 2).dirty(10)).device(&ports);
    let scene = DomainScene::imported("lv-plugged", FAST_SAMPLES, domain, &["labels.note=kept by its user"]);
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(1);
    scene.speaks();
    // Somebody who has it for a neighbour by that address.
    let client = scene.client.namespace();
    let link = Lab::CLIENT_INTERFACE;
    let neighbour = format!("neigh replace 10.9.0.77 lladdr {NEW} nud permanent dev {link}\n");
    let knock = || scene.client.tcp_connect("10.9.0.77:80".parse().unwrap(), SECOND);
    client.ip(&neighbour).unwrap();

    let (mark, start) = (scene.mark(), Instant::now());
    let words =
        ["--type", "bridge", "--source", "br0", "--mac", NEW, "--model", "virtio", "--live", "--domain"];
    scene.virsh(&[&["attach-interface"], &words[..]].concat());
    rewritten(&scene, mark, &format!("interface {NEW} in br0 is new"), |machine| has_interface(machine, NEW));
    assert!(start.elapsed() < 5 * SECOND, "only after {:?}", start.elapsed());
    let before = scene.before();
    scene.sleep_at("paused");
    let mark = scene.mark();
    // The guest has not given itself that address.
    assert!(knock().is_err());
    let waking = scene.entered(mark, MachineState::Waking);
    assert!(waking.cause.as_ref().is_some_and(|cause| cause.contains("10.9.0.77")), "{waking:?}");
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);

    let (mark, start) = (scene.mark(), Instant::now());
    scene.libvirtd.virsh(&["detach-interface", "web", "bridge", "--mac", NEW, "--live"]).unwrap();
    rewritten(&scene, mark, &format!("interface {NEW} is gone"), |machine| !has_interface(machine, NEW));
    assert!(start.elapsed() < 20 * SECOND, "the guest gives it up, and {:?} passed", start.elapsed());
    scene.sleep_at("paused");
    assert!(knock().is_err());
    scene.speaks();
    assert_eq!(scene.state(), MachineState::Asleep);
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
}

fn edited(scene: &DomainScene) {
    let interface =
        format!("<interface type=\"bridge\"><mac address=\"{NEW}\"/><source bridge=\"br0\"/></interface>");
    let mark = scene.mark();
    let add = format!("s|</devices>|{interface}</devices>|");
    edit(scene, &[&add, "s|>262144<|>327680<|"]);
    rewritten(scene, mark, "320MiB of memory", |machine| {
        machine.summary.memory_bytes == 320 << 20 && has_interface(machine, NEW)
    });
    let mark = scene.mark();
    let remove = format!("/<interface/{{:a;N;/<.interface>/!ba;/{NEW}/d}}");
    edit(scene, &[&remove, "s|>327680<|>262144<|"]);
    rewritten(scene, mark, &format!("interface {NEW} is gone"), |machine| {
        machine.summary.memory_bytes == 256 << 20 && !has_interface(machine, NEW)
    });
}

fn renamed(scene: &DomainScene) {
    for (old, new) in [("web", "shop"), ("shop", "web")] {
        let mark = scene.mark();
        scene.libvirtd.virsh(&["domrename", old, new]).unwrap();
        let line = format!("domain = \"{new}\"");
        rewritten(scene, mark, &format!("it is domain {new} now"), |machine| machine.toml.contains(&line));
    }
}

/// Undefined, it is said to be so; and is the same machine when it is defined again.
fn undefined(scene: &DomainScene) {
    let xml = scene.virsh(&["dumpxml", "--inactive"]);
    let file = scene.lab.write("again.xml", &xml).unwrap();
    let mark = scene.mark();
    scene.virsh(&["undefine"]);
    scene.warned(mark, &["its platform knows it no longer", "undefined by another client"]);
    let told = scene.refused(&["start", "web"], 4);
    assert!(told.contains("cannot boot") && told.contains("Domain not found"), "{told}");
    scene.follows(MachineState::Stopped);
    scene.libvirtd.virsh(&["define", file.to_str().unwrap()]).unwrap();
}

/// Nobody is told of what is attached for the next start: it is followed then.
fn attached(scene: &DomainScene) {
    scene.virsh(&[
        "attach-interface",
        "--config",
        "--type",
        "bridge",
        "--source",
        "br0",
        "--mac",
        NEW,
        "--domain",
    ]);
    let mark = scene.mark();
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(1);
    rewritten(scene, mark, &format!("interface {NEW} in br0 is new"), |machine| has_interface(machine, NEW));
    // Both are stood in for.
    scene.speaks();
    let before = scene.before();
    scene.sleep();
    scene.speaks();
    assert_eq!(scene.state(), MachineState::Asleep);
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
}

/// Somebody goes back to a snapshot while it sleeps: that is what runs, and the sleep's state is nobody's.
fn reverted(scene: &DomainScene) {
    let before = scene.before();
    scene.libvirtd.virsh(&["snapshot-create-as", "web", "first"]).unwrap();
    scene.wait(MachineState::Active);
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    scene.sleep();
    scene.libvirtd.virsh(&["snapshot-revert", "web", "first"]).unwrap();
    scene.follows(MachineState::Active);
    assert_eq!(scene.domstate(), "running");
    assert_eq!(scene.before(), before);
    scene.sleep();
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
}

/// libvirtd starts what has autostart, a sleeper too.
fn started_by_libvirtd(scene: &DomainScene) {
    scene.virsh(&["autostart"]);
    let doctor = scene.daemon.cli(&["doctor", "web"]).unwrap();
    assert!(doctor.stdout.contains("autostart"), "{doctor:?}");
    let before = scene.before();
    scene.sleep();
    scene.libvirtd.restart_as_at_boot().unwrap();
    scene.follows(MachineState::Active);
    assert_eq!(scene.domstate(), "running");
    assert_eq!(scene.before(), before);
}
