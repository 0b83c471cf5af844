//! A definition that others change is followed, and the domain stays the machine that it was.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG};
use dormouse_lab::{
    Domain, Guest,
    api::{MachineDetail, MachineState},
};

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
