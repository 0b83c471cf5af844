//! libvirtd is killed in the middle of what it was asked for: no machine is lost, and none sleeps that is not saved.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, freeze, thaw};
use dormouse_lab::{Domain, Guest, api::MachineState, wait_until};
use std::{fs, thread};

/// How often it is tried to meet libvirtd in the middle.
const TRIES: usize = 10;

/// Kills libvirtd while QEMU, which stands still meanwhile, has something under way for it; what it was asked
/// for has begun when `has_begun` says so. Was it met in the middle?
#[track_caller]
fn cut(scene: &DomainScene, verb: &str, has_begun: impl Fn() -> bool) -> bool {
    thread::scope(|scope| {
        let asked = scope.spawn(|| scene.daemon.cli(&[verb, scene.name()]).unwrap());
        let begun = || Ok(has_begun() || asked.is_finished());
        wait_until(&format!("{verb} to be under way"), LONG, begun).unwrap();
        let met = match scene.lab.qemu_pids().unwrap()[..] {
            [qemu] if !asked.is_finished() => {
                freeze(qemu);
                scene.libvirtd.kill9().unwrap();
                thaw(qemu);
                true
            }
            _ => false,
        };
        if met {
            scene.libvirtd.resume().unwrap();
        }
        let out = asked.join().unwrap();
        println!("{verb}: met in the middle: {met}: {out:?}");
        assert!(verb != "wake" || out.code == Some(0), "{out:?}");
        met
    })
}

#[test]
fn libvirtd_is_killed_while_it_saves_and_while_it_restores() {
    let scene = DomainScene::boot("lv-cut", FAST_SAMPLES, Domain::new(Guest::new("web", 2).dirty(30)));
    scene.speaks();
    let before = scene.before();
    let file = scene.libvirtd.state_dir().join("qemu/save/web.save");

    // The file grows as QEMU writes what it has.
    let saving = || fs::metadata(&file).is_ok_and(|file| file.len() > 1 << 20);
    let met = (0..TRIES).any(|_| {
        let met = cut(&scene, "sleep", saving);
        // It sleeps, or runs; in either case it is there for who wants it.
        let found = scene.wait_sound();
        println!("found {found}");
        scene.page();
        scene.wait(MachineState::Active);
        assert_eq!(scene.before(), before);
        // What was written of it is nobody's state.
        assert!(scene.virsh(&["dominfo"]).contains("Managed save:   no"));
        met
    });
    assert!(met, "no save was met in the middle");
    scene.sleep();
    assert_eq!(scene.domstate(), "shut off");

    let loading = || scene.lab.qemu_pids().is_ok_and(|pids| !pids.is_empty());
    let met = (0..TRIES).any(|_| {
        let met = cut(&scene, "wake", loading);
        // It waited for libvirtd, and went on from where that had come.
        assert_eq!(scene.state(), MachineState::Active);
        scene.page();
        assert_eq!(scene.before(), before);
        scene.sleep();
        met
    });
    assert!(met, "no restore was met in the middle");
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
}
