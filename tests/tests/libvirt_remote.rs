//! A libvirt that is reached as one of another host: its domains sleep and wake by command, and what others do is
//! followed.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{Daemon, Domain, Guest, Lab, Libvirtd, api::MachineState, guest::Image};

#[test]
fn a_domain_of_another_host_sleeps_and_wakes_by_command() {
    let (lab, image) = (Lab::new("lv-remote").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start_listening(&lab).unwrap();
    let guest = Guest::new("web", 2).dirty(10);
    let domain = Domain::new(guest.clone());
    libvirtd.boot(&lab, &image, &domain).unwrap();
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[]).unwrap();
    let refused = daemon.cli(&["import", "libvirt", "--uri", Libvirtd::TCP_URI, "web"]).unwrap();
    assert!(refused.code == Some(4) && refused.stderr.contains("another host"), "{refused:?}");

    let file = format!(
        "name = \"web\"\n[libvirt]\ndomain = \"web\"\nuri = {:?}\n[sleep]\nidle_after = \"never\"\n",
        Libvirtd::TCP_URI
    );
    let file = lab.write("web.toml", &file).unwrap();
    daemon.run(&["create", &file.to_string_lossy()]).unwrap();
    daemon.wait_state("web", MachineState::Active, LONG).unwrap();
    let events = daemon.events().unwrap();
    let scene = Scene { events, daemon, client: lab.client(), guest, image, lab };
    let scene = DomainScene { libvirtd, domain, scene };

    let before = scene.before();
    for (depth, asleep, back) in [("paused", "paused", "resume"), ("saved", "shut off", "start")] {
        scene.sleep_at(depth);
        assert_eq!(scene.domstate(), asleep, "{depth}");
        scene.daemon.wake("web").unwrap();
        scene.wait(MachineState::Active);
        assert_eq!((scene.domstate(), scene.before()), ("running".into(), before.clone()), "{depth}");
        // Somebody else wakes it.
        scene.sleep_at(depth);
        scene.virsh(&[back]);
        scene.follows(MachineState::Active);
        assert_eq!(scene.before(), before, "{depth}");
    }
    for (verb, state) in [
        ("suspend", MachineState::Suspended),
        ("resume", MachineState::Active),
        ("destroy", MachineState::Stopped),
    ] {
        scene.virsh(&[verb]);
        scene.follows(state);
    }
}
