//! Domains of libvirt sleep at every depth, are answered for, and wake.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, OpenVSwitch, ROOMY, TCP_ONLY};
use dormouse_lab::{
    Domain, Guest, Lab, Libvirtd,
    api::{MachineDetail, MachineState},
    wait_until,
};
use dormouse_types::Depth;
use std::net::{IpAddr, Ipv4Addr};

/// A guest that connections wake; datagrams to its sink are held.
fn web() -> Guest {
    Guest::new("web", 2).set("wake.on", vec![TCP_ONLY.to_owned()])
}

#[test]
fn sleeps_at_every_depth_and_wakes_at_a_packet() {
    let domain = Domain::new(web().dirty(20)).agent().suspend_to_memory();
    let scene = DomainScene::boot("lv-depths", ROOMY, domain);
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    for (depth, state) in [("paused", "paused"), ("saved", "shut off")] {
        scene.sleep_at(depth);
        assert_eq!(scene.domstate(), state, "{depth}");
        scene.daemon.wake(scene.name()).unwrap();
        scene.wait(MachineState::Active);
        scene.sleeps_and_wakes(depth);
        assert_eq!(shell.run("echo the same").unwrap(), "the same\n", "{depth}");
    }
    scene.sleeps_and_wakes("pmsuspended");
    suspends_again_or_says_why_not(&scene);
    assert_eq!(shell.run("echo the same").unwrap(), "the same\n");
    assert_eq!(scene.domstate(), "running");
    // What libvirt saved is gone once it is used, and the domain is as it was defined.
    assert!(scene.virsh(&["dominfo"]).contains("Managed save:   no"));
}

/// Some firmware brings its guest back from S3 without what it needs for another: the sleep is undone, and is not
/// tried again.
#[track_caller]
fn suspends_again_or_says_why_not(scene: &DomainScene) {
    let before = scene.before();
    let ask = || scene.daemon.cli(&["sleep", "--depth", "pmsuspended", "web"]).unwrap();
    if ask().code == Some(0) {
        scene.page();
    } else {
        scene.wait(MachineState::Active);
        let again = ask();
        assert!(again.stderr.contains("suspended itself once"), "{again:?}");
        let abilities = scene.daemon.show("web").unwrap().abilities;
        assert!(!abilities.depths.contains(&Depth::Pmsuspended), "{abilities:?}");
    }
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
}

#[test]
fn off_boots_again_at_a_packet() {
    let domain = Domain::new(Guest::new("web", 2).set("sleep.depth", "off"));
    let scene = DomainScene::boot("lv-off", FAST_SAMPLES, domain);
    scene.speaks();
    let before = scene.before();
    scene.sleep();
    scene.wait_no_qemu();
    assert_eq!(scene.domstate(), "shut off");
    scene.speaks();
    let mark = scene.mark();
    // The guest is on the network before its web server is: a connection may be refused until then.
    let ask = || Ok(scene.client.http_get(scene.web(), "/", LONG).is_ok());
    wait_until("the web server", LONG, ask).unwrap();
    scene.booted(2);
    let awake = scene.entered(mark, MachineState::Active);
    assert!(awake.figures["replayed_frames"] >= 1.0, "{awake:?}");
    assert_ne!(scene.before().boot_id, before.boot_id);
}

#[test]
fn an_idle_domain_sleeps_by_itself_and_broadcasts_are_not_doubled() {
    let guest = web().set("sleep.idle_after", "2s");
    let scene = DomainScene::boot("lv-idle", FAST_SAMPLES, Domain::new(guest));
    scene.speaks();
    let mark = scene.mark();
    scene.wait(MachineState::Asleep);
    let settling = scene.entered(mark, MachineState::Settling);
    assert!(settling.cause.as_ref().is_some_and(|cause| cause.contains("idle")), "{settling:?}");
    scene.page();
    scene.wait(MachineState::Active);
    broadcasts(&scene);
}

/// Broadcasts through sleeps and wakes, fewer than are held of them: each arrives once.
#[track_caller]
fn broadcasts(scene: &DomainScene) {
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    let stream = scene.client.udp_stream(Ipv4Addr::new(10, 9, 0, 255), 40, 100).unwrap();
    for depth in ["saved", "paused", "saved"] {
        scene.sleep_at(depth);
        scene.page();
        scene.wait(MachineState::Active);
    }
    let sent = stream.stop().datagrams;
    let stats = scene.settled_sink(sent);
    // In order they are not: once the guest's tap has joined the bridge, new ones reach the guest directly,
    // while older ones are still held.
    let why = scene.daemon.why("web").unwrap();
    assert_eq!((stats.received, stats.lost, stats.duplicates), (sent, 0, 0), "{stats:?} {why:?}");
}

/// Who sleeps paused is saved after a while, without being woken: its guest runs on from where it was.
#[test]
fn a_paused_domain_is_saved_with_time() {
    let deeper = [("depth", "saved"), ("after", "2s")].map(|(key, value)| (key.to_owned(), value.into()));
    let guest = web().dirty(20).set("sleep.depth", "paused");
    let guest = guest.set("sleep.deeper", vec![toml::Table::from_iter(deeper)]);
    let scene = DomainScene::boot("lv-deeper", ROOMY, Domain::new(guest));
    scene.speaks();
    let (before, mark) = (scene.before(), scene.mark());
    assert_eq!(scene.sleep().depth, Some(Depth::Paused));
    let is_saved = |m: &MachineDetail| {
        assert_ne!(m.summary.state, MachineState::Waking, "{m:?}");
        m.summary.state == MachineState::Asleep && m.summary.depth == Some(Depth::Saved)
    };
    let saved = || {
        // There is no moment at which nobody answers for it.
        scene.speaks();
        Ok(is_saved(&scene.daemon.show(scene.name())?))
    };
    wait_until("it to be saved", LONG, saved).unwrap();
    assert_eq!(scene.domstate(), "shut off");
    assert!(scene.virsh(&["dominfo"]).contains("Managed save:   yes"));
    scene.slept_on(mark);
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
}

/// libvirt's own network: its bridge, and addresses by its dnsmasq.
#[test]
fn on_a_network_of_libvirt() {
    let lab = Lab::new("lv-nat").unwrap();
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(web().dhcp()).nat();
    libvirtd.nat(&lab, &[domain.guest()]).unwrap();
    let scene = DomainScene::with(lab, libvirtd, ROOMY, &[], domain);
    let ip = IpAddr::from(scene.guest.ip());
    let knows = |m: &MachineDetail| m.summary.addresses.contains(&ip);
    scene.daemon.wait_machine("web", "known by its address", LONG, knows).unwrap();
    for depth in ["saved", "paused"] {
        scene.sleeps_and_wakes(depth);
    }
    // The host itself is a neighbour there.
    scene.sleep();
    let ping = scene.lab.switch().command("ping").args(["-c1", "-W5", "10.9.0.2"]).status().unwrap();
    assert!(ping.success());
    assert_eq!(scene.state(), MachineState::Asleep);
}

/// With the userspace datapath, which does not complete checksums: asked by ICMP.
#[test]
fn on_a_bridge_of_open_vswitch() {
    let lab = Lab::new("lv-ovs").unwrap();
    let switch = OpenVSwitch::start(&lab);
    let libvirtd = Libvirtd::start_with(&lab, &[switch.environment()]).unwrap();
    let domain = Domain::new(Guest::new("web", 2)).openvswitch();
    let scene = DomainScene::with(lab, libvirtd, FAST_SAMPLES, &[switch.environment()], domain);
    scene.sleeps_and_answers_pings();
    scene.wakes_at_a_large_ping();
}

/// Until the balloon driver has counted twice it is taken to be in use: it sleeps because it was asked.
#[test]
fn a_balloon_driver_says_how_many_pages_are_read_back() {
    let guest = Guest::new("web", 2).set("sleep.idle_after", "2s").set("sleep.cpu_below", 90);
    let domain = Domain::new(guest.set("sleep.faults_below", 1000));
    let scene = DomainScene::boot("lv-faults", FAST_SAMPLES, domain);
    let mut told = Vec::new();
    let sleeps = || {
        let why = scene.daemon.why("web")?;
        told.extend(why.signals.into_iter().filter(|signal| signal.name == "faults"));
        Ok(why.state == MachineState::Asleep)
    };
    wait_until("it to sleep", LONG, sleeps).unwrap();
    assert!(told.iter().any(|signal| signal.value.is_none() && signal.busy), "{told:?}");
    // A definition without a period for the statistics stays so.
    assert!(!scene.virsh(&["dumpxml", "--inactive"]).contains("<stats"));
}
