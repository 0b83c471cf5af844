//! Domains of libvirt's own mock driver, `test:///default`: no guests, but the states, calls and events of
//! real ones. Its domains are this process's, so that "another client" is another connection of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::time::Duration;

use dormouse_libvirt::{Domain, Libvirt};
use dormouse_machine::{
    lifecycle::{Observed, Process, StateOnDisk},
    spec::{MachineSpec, PlatformSpec},
};
use dormouse_net::Net;
use dormouse_platform::{Error, Instance, Notice};
use dormouse_types::{Depth, MachineName};
use tokio::{sync::mpsc, time::timeout};
use virt::{connect::Connect, domain::Domain as Theirs};

const URI: &str = "test:///default";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

const RUNNING: Observed = Observed { process: Process::Running, saved_state: StateOnDisk::None };
const STILL: Observed = Observed { process: Process::Still, saved_state: StateOnDisk::None };
const OFF: Observed = Observed { process: Process::Absent, saved_state: StateOnDisk::None };
const SAVED: Observed = Observed { process: Process::Absent, saved_state: StateOnDisk::Whole };

/// A domain of its own for each test, running, with the machine that it is.
struct Scene {
    domain: Domain,
    told: mpsc::Receiver<Notice>,
    /// As another client has it.
    theirs: Theirs,
    other: Connect,
    name: MachineName,
    _libvirt: Libvirt,
}

fn xml(name: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type>hvm</type></os></domain>"
    )
}

fn machine(name: &str, uri: &str) -> MachineSpec {
    let file = format!("name = \"{name}\"\n[libvirt]\ndomain = \"{name}\"\nuri = \"{uri}\"\n");
    MachineSpec::from_toml(&file, std::path::Path::new("/")).unwrap()
}

fn join(name: &str, uri: &str) -> (Libvirt, Domain, mpsc::Receiver<Notice>) {
    let (notices, told) = mpsc::channel(64);
    let libvirt = Libvirt::new(uri, "/nonexistent/domains", Net::connect().unwrap(), notices);
    let spec = machine(name, uri);
    let PlatformSpec::Libvirt(ours) = &spec.platform else { panic!("of libvirt") };
    let domain = libvirt.domain(&spec, ours).unwrap();
    (libvirt, domain, told)
}

impl Scene {
    async fn new(name: &str) -> Self {
        let (libvirt, domain, told) = join(name, URI);
        let no_domain = domain.observe().await.unwrap();
        assert_eq!(no_domain, OFF);
        let other = Connect::open(Some(URI)).unwrap();
        let theirs = Theirs::define_xml(&other, &xml(name)).unwrap();
        let name: MachineName = name.parse().unwrap();
        let mut scene = Self { domain, told, theirs, other, name, _libvirt: libvirt };
        assert!(matches!(scene.next().await, Notice::Undefined(..)), "there was none");
        assert_eq!(scene.next().await, Notice::Redefined(scene.name.clone()));
        scene.theirs.create().unwrap();
        scene.changed("started by another client of libvirt").await;
        assert_eq!(scene.seen().await, RUNNING);
        scene
    }

    async fn next(&mut self) -> Notice {
        timeout(PATIENCE, self.told.recv()).await.expect("something is told").expect("somebody tells")
    }

    async fn changed(&mut self, by: &str) {
        assert_eq!(self.next().await, Notice::Changed(self.name.clone(), by.into()));
    }

    async fn seen(&self) -> Observed {
        self.domain.observe().await.unwrap()
    }

    /// The next that is told is what another client does now: nothing of ours was, that came before.
    async fn nothing_of_ours_is_told(&mut self) {
        const INACTIVE: u32 = 2;
        Theirs::define_xml(&self.other, &self.theirs.get_xml_desc(INACTIVE).unwrap()).unwrap();
        assert_eq!(self.next().await, Notice::Redefined(self.name.clone()));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.theirs.destroy();
        let _ = self.theirs.managed_save_remove(0);
        let _ = self.theirs.undefine();
        let _ = self.other.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_do_is_done_and_not_told() {
    let mut scene = Scene::new("ours").await;
    for _ in 0..2 {
        scene.domain.pause().await.unwrap();
        assert_eq!(scene.seen().await, STILL);
    }
    for _ in 0..2 {
        scene.domain.resume().await.unwrap();
        assert_eq!(scene.seen().await, RUNNING);
    }
    scene.nothing_of_ours_is_told().await;
    for _ in 0..2 {
        scene.domain.kill().await.unwrap();
        assert_eq!(scene.seen().await, OFF);
    }
    scene.nothing_of_ours_is_told().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_is_told_with_who_did_it() {
    let mut scene = Scene::new("theirs").await;
    scene.theirs.suspend().unwrap();
    scene.changed("suspended by another client of libvirt").await;
    assert_eq!(scene.seen().await, STILL);
    scene.theirs.resume().unwrap();
    scene.changed("resumed by another client of libvirt").await;
    scene.theirs.managed_save(0).unwrap();
    scene.changed("saved by another client of libvirt").await;
    assert_eq!(scene.seen().await, SAVED);
    scene.theirs.create().unwrap();
    assert!(matches!(scene.next().await, Notice::Changed(..)));
    scene.theirs.destroy().unwrap();
    scene.changed("destroyed by another client of libvirt").await;
    assert_eq!(scene.seen().await, OFF);
    scene.theirs.undefine().unwrap();
    let gone = Notice::Undefined(scene.name.clone(), "undefined by another client of libvirt".into());
    assert_eq!(scene.next().await, gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_just_after_us_is_theirs() {
    let mut scene = Scene::new("both").await;
    scene.domain.pause().await.unwrap();
    scene.theirs.resume().unwrap();
    scene.changed("resumed by another client of libvirt").await;
    scene.theirs.suspend().unwrap();
    scene.changed("suspended by another client of libvirt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_down_is_told_unless_we_asked() {
    let mut scene = Scene::new("shutdown").await;
    scene.theirs.shutdown().unwrap();
    assert_eq!(scene.next().await, Notice::GuestShutdown(scene.name.clone()));
    scene.theirs.create().unwrap();
    scene.changed("started by another client of libvirt").await;
    for _ in 0..2 {
        scene.domain.power_down(PATIENCE).await.unwrap();
        assert_eq!(scene.seen().await, OFF);
    }
    scene.nothing_of_ours_is_told().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_save_is_made_and_removed() {
    let mut scene = Scene::new("saved").await;
    scene.domain.pause().await.unwrap();
    scene.domain.save().await.unwrap();
    scene.domain.quit().await.unwrap();
    assert_eq!(scene.seen().await, SAVED);
    for _ in 0..2 {
        scene.domain.discard_state().await.unwrap();
        assert_eq!(scene.seen().await, OFF);
    }
    scene.nothing_of_ours_is_told().await;
}

/// libvirt has no event for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_managed_save_that_others_remove_is_missed() {
    let mut scene = Scene::new("removed").await;
    scene.domain.pause().await.unwrap();
    scene.domain.save().await.unwrap();
    scene.theirs.managed_save_remove(0).unwrap();
    match scene.next().await {
        Notice::Changed(_, by) => assert!(by.starts_with("its managed save was removed"), "{by}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.seen().await, OFF);
    scene.nothing_of_ours_is_told().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_saved_is_not_booted_in_place_of_a_wake() {
    let mut scene = Scene::new("unwakable").await;
    scene.domain.kill().await.unwrap();
    let error = scene.domain.load().await.unwrap_err();
    assert_eq!(error.to_string(), "libvirt did not restore domain unwakable");
    assert!(matches!(scene.next().await, Notice::Changed(_, by) if by.contains("its managed save")));
    assert_eq!(scene.seen().await, OFF);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ended_that_is_not_saved() {
    let scene = Scene::new("unsaved").await;
    assert!(matches!(scene.domain.quit().await, Err(Error::Unsupported(_))));
    assert_eq!(scene.seen().await, RUNNING);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_process_neither_runs_on_nor_stands_still() {
    let scene = Scene::new("processless").await;
    scene.domain.kill().await.unwrap();
    assert!(matches!(scene.domain.resume().await, Err(Error::NotRunning)));
    assert!(matches!(scene.domain.pause().await, Err(Error::NotRunning)));
    assert!(matches!(scene.domain.attach().await, Err(Error::NotRunning)));
    assert!(scene.domain.ports().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_not_started_again() {
    let scene = Scene::new("running").await;
    assert!(matches!(scene.domain.load().await, Err(Error::AlreadyRunning { .. })));
    assert_eq!(scene.seen().await, RUNNING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_not_there_is_named() {
    let (_libvirt, domain, mut told) = join("nobody", URI);
    let error = domain.load().await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), "libvirt did not start domain nobody");
    assert!(why.contains("not found"), "{why}");
    assert_eq!(domain.observe().await.unwrap(), OFF);
    assert!(matches!(told.recv().await, Some(Notice::Undefined(..))));
    domain.kill().await.unwrap();
    domain.discard_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_leaves_the_domain_to_its_user() {
    let scene = Scene::new("kept").await;
    scene.domain.kill().await.unwrap();
    scene.domain.erase().await.unwrap();
    assert!(Theirs::lookup_by_name(&scene.other, "kept").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_without_obstacles_can_sleep() {
    let scene = Scene::new("able").await;
    assert_eq!(scene.domain.capabilities().depths, Depth::ALL);
    // Where nobody sees a process, nobody says that it occupies nothing.
    assert_eq!(scene.domain.facts().await.resident_bytes, None);
    let obstacles = scene.domain.obstacles().await;
    assert!(!obstacles.iter().any(|obstacle| obstacle.bars(Depth::Saved)), "{obstacles:?}");
    assert_eq!(scene.domain.capabilities().obstacles, obstacles);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirt_that_is_not_there_is_told_of_once() {
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let (_libvirt, domain, mut told) = join("lost", uri);
    for _ in 0..2 {
        match domain.observe().await {
            Err(Error::Unreachable { whom, why }) => {
                assert_eq!(whom, format!("libvirt ({uri})"));
                assert!(why.contains("/nonexistent/libvirt-sock"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(told.recv().await, Some(Notice::Unreachable(..))));
    assert!(told.try_recv().is_err(), "once is enough");
    // It can be stood in for all the same.
    assert!(domain.ports().await.unwrap().is_empty());
    let obstacles = domain.obstacles().await;
    assert!(obstacles.iter().all(|obstacle| obstacle.bars(Depth::Paused)), "{obstacles:?}");
}

/// From here nobody reaches the taps and the memory of what runs there.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_works_on_its_own_host_is_refused_of_another() {
    const UPLINK: &str = "[[interface]]\nmac = \"52:54:00:00:00:02\"\nbridge = \"br0\"\n";
    let (notices, _told) = mpsc::channel(64);
    let libvirt = Libvirt::new(URI, "/nonexistent/domains", Net::connect().unwrap(), notices);
    let make = |uri: &str, more: &str| {
        let file = format!("name = \"web\"\n[libvirt]\ndomain = \"web\"\nuri = \"{uri}\"\n{more}");
        let spec = MachineSpec::from_toml(&file, std::path::Path::new("/")).unwrap();
        let PlatformSpec::Libvirt(ours) = &spec.platform else { panic!("of libvirt") };
        libvirt.domain(&spec, ours).map(drop)
    };
    for more in [UPLINK, "page_out = true\n", "save = \"ram-file\"\n"] {
        let Err(error) = make("qemu+ssh://b.invalid/system", more) else { panic!("{more} is taken") };
        let why = error.to_string();
        assert!(why.contains("qemu+ssh://b.invalid/system is on another host"), "{why}");
        make("qemu+unix:///system?socket=/nonexistent/libvirt-sock", more).unwrap();
    }
    make("qemu+ssh://b.invalid/system", "").unwrap();
}
