//! What keeps a guest awake, and what does not: open sessions by rule, holds of running programs,
//! inhibitor locks, a schedule, and a program that decides.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Daemon, Domain, Guest, Lab, Libvirtd,
    api::{MachineState, Signal, Why},
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};
use toml::{Table, Value};

/// A guest that sleeps after so many idle seconds. A guest under emulation is never quite idle.
fn guest(idle_after: &str) -> Guest {
    Guest::new("web", 2).set("sleep.idle_after", idle_after).set("sleep.cpu_below", 90)
}

/// As [`Scene::boot`], with a hold: a boot may take longer than the guest may be idle.
#[track_caller]
fn boot_held(prefix: &str, guest: Guest) -> Scene {
    let scene = Scene::new(prefix, FAST_SAMPLES, guest);
    start_held(&scene);
    scene
}

#[track_caller]
fn start_held(scene: &Scene) {
    hold_boot(scene);
    scene.start(&[]);
}

#[track_caller]
pub(crate) fn hold_boot(scene: &Scene) {
    scene.daemon.run(&["hold", scene.name(), "--no-wait", "--reason", "boots"]).unwrap();
}

/// Ends that hold.
#[track_caller]
pub(crate) fn let_sleep(scene: &Scene) {
    scene.daemon.run(&["release", scene.name()]).unwrap();
}

/// A rule of `sleep.connections`.
fn rule(matcher: &str, idle_after: Option<&str>) -> Value {
    let pairs = [("match", Some(matcher)), ("idle_after", idle_after)];
    let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    Value::Table(pairs.collect::<Table>())
}

#[track_caller]
pub(crate) fn wait_why(scene: &Scene, what: &str, is_it: impl Fn(&Why) -> bool) -> Why {
    let mut last = scene.daemon.why(scene.name()).unwrap();
    let waited = wait_until(what, LONG, || {
        last = scene.daemon.why(scene.name())?;
        Ok(is_it(&last))
    });
    assert!(waited.is_ok(), "{waited:?}: {last:?}");
    last
}

pub(crate) fn signal<'a>(why: &'a Why, name: &str) -> Option<&'a Signal> {
    why.signals.iter().find(|signal| signal.name == name)
}

/// All but the signal `name` have been quiet for longer than `idle_after`: only that keeps it awake.
pub(crate) fn only_busy_by(why: &Why, name: &str, idle_after: Duration) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let quiet = |signal: &Signal| {
        let since = signal.since.map_or(0, |since| since.timestamp().0);
        let long = now.saturating_sub(Duration::from_nanos(since)) > idle_after;
        // What has no threshold is only told.
        !signal.busy && (long || signal.threshold.is_none())
    };
    let (it, others): (Vec<_>, Vec<_>) = why.signals.iter().partition(|signal| signal.name == name);
    it.iter().any(|signal| signal.busy) && others.into_iter().all(quiet)
}

#[test]
fn an_open_ssh_session_keeps_awake_if_the_file_says_so() {
    let rules = Value::Array(vec![rule("tcp:22", None)]);
    let scene = boot_held("idle-ssh", guest("3s").set("sleep.connections", rules));
    let session = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    let_sleep(&scene);
    let name = "connections tcp:22";
    let why = wait_why(&scene, "the session alone to keep it awake", |why| {
        only_busy_by(why, name, Duration::from_secs(3))
    });
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None), "{why:?}");
    assert_eq!(signal(&why, name).unwrap().value, Some(1.0));
    let page = scene.daemon.run(&["why", scene.name()]).unwrap();
    assert!(page.contains("not while this lasts: connections tcp:22"), "{page}");
    drop(session);
    scene.wait(MachineState::Asleep);
}

#[test]
fn a_silent_session_keeps_awake_no_longer_than_its_rule_says() {
    let rules = Value::Array(vec![rule("tcp:22", Some("8s"))]);
    let scene = boot_held("idle-silent", guest("2s").set("sleep.connections", rules));
    let mut session = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    let_sleep(&scene);
    let why = wait_why(&scene, "the session alone to keep it awake", |why| {
        only_busy_by(why, "connections tcp:22", Duration::from_secs(2))
    });
    assert!(
        why.would_sleep_at.is_some_and(|at| Some(at) >= signal(&why, "connections tcp:22").unwrap().until)
    );
    scene.wait(MachineState::Asleep);
    // It goes on where it was: it was open all the time.
    assert_eq!(session.run("echo still here").unwrap(), "still here\n");
}

/// A session that keeps it awake, and another that does not and outlives the sleep.
#[test]
fn the_rules_of_connections_hold_for_a_domain_of_libvirt() {
    let rules = "sleep.connections=[{match=\"tcp:22\"},{match=\"tcp:7778\",keep_awake=false}]";
    let keys = ["sleep.idle_after=3s", "sleep.cpu_below=90", rules];
    let scene = DomainScene::imported(
        "idle-domain",
        FAST_SAMPLES,
        Domain::new(Guest::new("web", 2).dirty(10)),
        &keys,
    );
    hold_boot(&scene);
    scene.daemon.run(&["start", scene.name()]).unwrap();
    scene.booted(1);
    let mut echo = scene.client.echo(scene.guest.ip()).unwrap();
    let session = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    let_sleep(&scene);
    let name = "connections tcp:22";
    wait_why(&scene, "the session alone to keep it awake", |why| {
        only_busy_by(why, name, Duration::from_secs(3)) && why.would_sleep_at.is_none()
    });
    assert_eq!(scene.state(), MachineState::Active);
    drop(session);
    scene.wait(MachineState::Asleep);
    assert_eq!(scene.domstate(), "shut off");
    echo.say("still here").unwrap();
}

/// Looks at a screen as a VNC viewer does that asks for nothing more (RFC 6143 §7.1, §7.3).
fn look_at<S: Read + Write>(mut screen: S) -> S {
    let mut version = [0; 12];
    screen.read_exact(&mut version).unwrap();
    assert_eq!(&version, b"RFB 003.008\n");
    screen.write_all(&version).unwrap();
    let mut kinds = [0; 1];
    screen.read_exact(&mut kinds).unwrap();
    let mut kinds = vec![0; kinds[0].into()];
    screen.read_exact(&mut kinds).unwrap();
    assert!(kinds.contains(&1), "none of {kinds:?} is without a password");
    screen.write_all(&[1]).unwrap();
    let mut refused = [0; 4];
    screen.read_exact(&mut refused).unwrap();
    assert_eq!(refused, [0; 4]);
    // Shared with others. What it answers begins with 24 octets on the screen.
    screen.write_all(&[1]).unwrap();
    screen.read_exact(&mut [0; 24]).unwrap();
    screen
}

/// A domain that runs, has this screen, and would sleep after three seconds but for a hold.
fn with_screen(lab: Lab, listen: &str) -> DomainScene {
    let keys = ["sleep.idle_after=3s", "sleep.cpu_below=90"];
    let screen = format!("<graphics type='vnc' {listen}/><video><model type='vga'/></video>");
    let domain = Domain::new(Guest::new("web", 2).dirty(10)).device(&screen);
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let scene = DomainScene::imported_from(lab, libvirtd, FAST_SAMPLES, domain, &keys);
    hold_boot(&scene);
    scene.daemon.run(&["start", scene.name()]).unwrap();
    scene.booted(1);
    scene
}

#[track_caller]
fn only_a_viewer_keeps_awake(scene: &DomainScene) {
    let why = wait_why(scene, "the viewer alone to keep it awake", |why| {
        only_busy_by(why, "viewers", Duration::from_secs(3)) && why.would_sleep_at.is_none()
    });
    assert_eq!(signal(&why, "viewers").unwrap().value, Some(1.0), "{why:?}");
    assert_eq!(scene.domstate(), "running");
}

#[test]
fn who_looks_at_the_screen_of_a_domain_keeps_it_awake() {
    let mut scene = with_screen(Lab::new("idle-viewer").unwrap(), "listen='127.0.0.1' autoport='yes'");
    let display = scene.virsh(&["vncdisplay"]);
    let number: u16 = display.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", 5900 + number)).unwrap();
    let viewer = look_at(scene.lab.switch().run(connect).unwrap());
    let_sleep(&scene);
    only_a_viewer_keeps_awake(&scene);
    // Nobody tells of one that was there before.
    scene.daemon.kill9().unwrap();
    scene.daemon.restart().unwrap();
    only_a_viewer_keeps_awake(&scene);
    drop(viewer);
    scene.wait(MachineState::Asleep);
    assert_eq!(scene.domstate(), "shut off");
}

#[test]
fn who_looks_by_a_socket_of_the_host_keeps_awake() {
    let lab = Lab::new("idle-screen").unwrap();
    let socket = lab.dir().join("vnc.sock");
    let scene = with_screen(lab, &format!("socket='{}'", socket.display()));
    let viewer = look_at(UnixStream::connect(&socket).unwrap());
    let_sleep(&scene);
    only_a_viewer_keeps_awake(&scene);
    drop(viewer);
    scene.wait(MachineState::Asleep);
    assert_eq!(scene.domstate(), "shut off");
}

/// `dormouse hold` of a program that runs. One that reads ends with what is returned, however that ends.
fn hold(scene: &Scene, args: &[&str]) -> Child {
    let mut command = scene.daemon.command(&[&["hold", scene.name()], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_hold_lasts_as_long_as_the_program() {
    let scene = boot_held("idle-hold", guest("2s"));
    let_sleep(&scene);
    scene.wait(MachineState::Asleep);
    // A command: the machine is woken first, and the status is the command's.
    let out = scene.daemon.cli(&["hold", scene.name(), "--", "sh", "-c", "exit 7"]).unwrap();
    assert_eq!(out.code, Some(7), "{out:?}");
    wait_why(&scene, "the hold to end", |why| why.holds.is_empty());
    // A process that runs already.
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mut holder = hold(&scene, &["--while", &sleeper.id().to_string()]);
    let why = wait_why(&scene, "the hold", |why| !why.holds.is_empty() && why.state == MachineState::Active);
    assert!(why.holds[0].reason.contains(&sleeper.id().to_string()), "{why:?}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(holder.wait().unwrap().success());
    wait_why(&scene, "the hold to end", |why| why.holds.is_empty());
    // Whoever holds is killed: nothing is left to release it, and it is released.
    let mut holder = hold(&scene, &["--", "cat"]);
    wait_why(&scene, "the hold", |why| !why.holds.is_empty() && why.state == MachineState::Active);
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_why(&scene, "the hold to end", |why| why.holds.is_empty());
    scene.wait(MachineState::Asleep);
}

#[test]
fn a_hold_outlives_the_daemon_while_its_program_runs() {
    let mut scene = Scene::boot("idle-again", FAST_SAMPLES, guest("10m"));
    let mut holder = hold(&scene, &["--", "cat"]);
    wait_why(&scene, "the hold", |why| why.holds.len() == 1);
    scene.restart("");
    let why = wait_why(&scene, "the hold of the new daemon", |why| why.holds.len() == 1);
    assert!(why.holds[0].id > 1, "the old one ended with its connection: {why:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_why(&scene, "the hold to end", |why| why.holds.is_empty());
}

#[test]
fn a_schedule_keeps_awake_and_bad_ones_are_refused() {
    let always = Value::Array(vec!["mon-sun".into()]);
    let scene = Scene::boot("idle-plan", FAST_SAMPLES, guest("1s").set("sleep.stay_awake", always));
    let why = wait_why(&scene, "to be idle and kept awake", |why| {
        !why.signals.is_empty() && why.signals.iter().all(|signal| !signal.busy) && why.keeps.len() == 1
    });
    assert_eq!((&*why.keeps[0].kind, why.would_sleep_at), ("schedule", None), "{why:?}");
    assert_eq!(scene.state(), MachineState::Active);
    let span = Value::Array(vec!["mon".into()]);
    let lost = Guest::new("lost", 3).set("sleep.stay_awake", span).set("sleep.timezone", "Mars/Olympus");
    let file = lost.write(&scene.lab, &scene.image).unwrap();
    let said = scene.refused(&["create", file.to_str().unwrap()], 1);
    assert!(said.contains("Mars/Olympus") && said.contains("timedatectl"), "{said}");
}

#[test]
fn a_policy_program_says_when_to_sleep() {
    let lab = Lab::new("idle-policy").unwrap();
    // The example that is installed, where the user of programs can read it.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/policies/office.py");
    let office = lab.write("office", &fs::read_to_string(example).unwrap()).unwrap();
    fs::set_permissions(&office, fs::Permissions::from_mode(0o755)).unwrap();
    let policy = format!(
        "{FAST_SAMPLES}[policy.office]\nprogram = {office:?}\nargs = [\"--soon\", \"3\", \"--late\", \"3\"]\n\
         timeout = \"30s\"\n"
    );
    let daemon = Daemon::start_with(&lab, &policy, &[]).unwrap();
    let guest = guest("never").set("sleep.policy", "external:office");
    let scene = Scene::with(lab, daemon, guest);
    start_held(&scene);
    let_sleep(&scene);
    scene.wait(MachineState::Asleep);
    let why = scene.daemon.why(scene.name()).unwrap();
    assert!(why.cause.as_ref().is_some_and(|why| why.starts_with("policy office: idle for ")), "{why:?}");
    let lost = Guest::new("lost", 3).set("sleep.policy", "external:none");
    let file = lost.write(&scene.lab, &scene.image).unwrap();
    let said = scene.refused(&["create", file.to_str().unwrap()], 1);
    assert!(said.contains("sleep.policy") && said.contains("[policy.none]"), "{said}");
}
