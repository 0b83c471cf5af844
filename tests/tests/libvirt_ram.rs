//! The definition of a domain with a RAM file, which others start and change as well, and which QEMU may be kept from.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG};
use dormouse_lab::{Domain, Guest, Lab, Libvirtd, api::MachineState, wait_until};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
};

const RAM_FILE: &str = "libvirt.save=ram-file";

fn web() -> Domain {
    Domain::new(Guest::new("web", 2).dirty(10))
}

fn definition(scene: &DomainScene) -> String {
    scene.virsh(&["dumpxml", "--inactive"])
}

/// Is the RAM file in the definition for its next start?
fn is_defined(scene: &DomainScene) -> bool {
    definition(scene).contains("dormouse-ram")
}

#[track_caller]
fn wait_defined(scene: &DomainScene) {
    wait_until("the RAM file in the definition", LONG, || Ok(is_defined(scene))).unwrap();
}

#[track_caller]
fn doctor_says(scene: &DomainScene, parts: &[&str]) {
    let said = scene.daemon.cli(&["doctor", "web"]).unwrap().stdout;
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
}

/// Sleeps saved, beside a RAM file or in a managed save, and wakes as it was.
#[track_caller]
fn sleeps_saved(scene: &DomainScene, beside_ram_file: bool) {
    let before = scene.before();
    scene.sleep_at("saved");
    scene.wait_no_qemu();
    let is_managed = scene.virsh(&["dominfo"]).contains("Managed save:   yes");
    let record = scene.daemon.state_dir().join("domains/web/state.json");
    assert_eq!((record.exists(), is_managed), (beside_ram_file, !beside_ram_file));
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
}

#[test]
fn whoever_starts_it_starts_it_with_its_ram_file() {
    let scene = DomainScene::imported("ramvirsh", FAST_SAMPLES, web(), &[RAM_FILE]);
    wait_defined(&scene);
    scene.virsh(&["start"]);
    scene.booted(1);
    sleeps_saved(&scene, true);

    // One that was started before it was a machine runs on without, and this is said.
    scene.virsh(&["destroy"]);
    scene.follows(MachineState::Stopped);
    scene.daemon.run(&["rm", "--force", "web"]).unwrap();
    assert!(!is_defined(&scene), "{}", definition(&scene));
    scene.virsh(&["start"]);
    scene.domain.wait_ready(&scene.lab, 2, LONG).unwrap();
    let uri = scene.libvirtd.uri();
    scene.daemon.run(&["import", "libvirt", "--uri", &uri, "web", "--set", RAM_FILE]).unwrap();
    scene.booted(2);
    wait_defined(&scene);
    doctor_says(&scene, &["this run was started without one", "the next has one"]);
    sleeps_saved(&scene, false);
    scene.virsh(&["destroy"]);
    scene.follows(MachineState::Stopped);
    scene.virsh(&["start"]);
    scene.booted(3);
    sleeps_saved(&scene, true);

    edited_meanwhile(&scene);
}

/// Others define it again and again, each time without: what they change stays, and the RAM file is put in again.
#[track_caller]
fn edited_meanwhile(scene: &DomainScene) {
    scene.virsh(&["destroy"]);
    scene.follows(MachineState::Stopped);
    let with = definition(scene);
    let (start, end) = (with.find("<qemu:commandline>").unwrap(), with.find("</domain>").unwrap());
    let (head, tail) = (&with[..start], &with[end..]);
    for round in 0..20 {
        let xml = [&head.replace("</name>", &format!("</name><title>round {round}</title>")), tail].concat();
        let file = scene.lab.write("edited.xml", &xml).unwrap();
        scene.libvirtd.virsh(&["define", &file.to_string_lossy()]).unwrap();
        let now = definition(scene);
        assert!(now.contains(&format!("<title>round {round}</title>")), "{now}");
    }
    wait_defined(scene);
    assert!(definition(scene).contains("<title>round 19</title>"));
    // What is undefined does not come back.
    scene.virsh(&["undefine"]);
    scene.follows(MachineState::Stopped);
    scene.daemon.run(&["rm", "web"]).unwrap();
    assert!(!scene.libvirtd.virsh(&["list", "--all", "--name"]).unwrap().contains("web"));
}

/// What libvirt saves of it names the file, and is restored only where there is one.
#[test]
fn a_domain_that_is_forgotten_can_be_saved_and_restored() {
    let scene = DomainScene::imported("ramforgot", FAST_SAMPLES, web(), &[RAM_FILE]);
    wait_defined(&scene);
    scene.virsh(&["start"]);
    scene.booted(1);
    let before = scene.before();
    let (uri, folder) = (scene.libvirtd.uri(), scene.daemon.state_dir().join("domains/web"));
    let forget = || {
        scene.daemon.run(&["rm", "web"]).unwrap();
        assert!(!is_defined(&scene), "{}", definition(&scene));
        // Its guest's memory is not left there.
        assert_eq!(fs::metadata(folder.join("ram")).unwrap().blocks(), 0);
    };
    let import = || {
        scene.daemon.run(&["import", "libvirt", "--uri", &uri, "web"]).unwrap();
        scene.wait(MachineState::Active);
        assert_eq!(scene.before(), before);
    };

    // It runs on in a file that has no name any more.
    forget();
    scene.virsh(&["managedsave"]);
    scene.virsh(&["start"]);
    import();

    scene.virsh(&["managedsave"]);
    scene.follows(MachineState::Stopped);
    forget();
    scene.virsh(&["start"]);

    // By hand, or by who did not know better.
    fs::remove_dir_all(&folder).unwrap();
    import();
    sleeps_saved(&scene, false);

    // Nobody names it any more.
    scene.virsh(&["destroy"]);
    scene.follows(MachineState::Stopped);
    scene.daemon.run(&["rm", "web"]).unwrap();
    assert!(!folder.exists());
}

/// As with the modes of folders, so with AppArmor and SELinux.
#[test]
fn a_ram_file_that_qemu_cannot_open_is_given_up() {
    let lab = Lab::new("ramclosed").unwrap();
    let libvirtd = Libvirtd::start(&lab).unwrap();
    libvirtd.run_qemu_as("+65534", "+65534").unwrap();
    let state = lab.dir().join("state");
    fs::create_dir_all(&state).unwrap();
    let mode = |mode| fs::set_permissions(&state, Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    let mut scene = DomainScene::imported_from(lab, libvirtd, FAST_SAMPLES, web(), &[RAM_FILE]);

    // Others would not be told why their start fails: it is not put in ahead.
    doctor_says(&scene, &["only `dormouse start` gives it one", "as user 65534", "cannot pass"]);
    assert!(!is_defined(&scene));
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(1);
    assert!(!is_defined(&scene), "{}", definition(&scene));
    doctor_says(&scene, &["managed save is used", "QEMU could not start with it", "apparmor.d"]);
    sleeps_saved(&scene, false);

    // It is put right as it is told.
    mode(0o711);
    scene.daemon.restart().unwrap();
    scene.wait(MachineState::Active);
    scene.daemon.run(&["stop", "web"]).unwrap();
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(2);
    assert!(is_defined(&scene));
    sleeps_saved(&scene, true);
}
