//! What goes wrong is told: a clear state, an event, a line in the log with the chain of causes, and
//! a daemon that goes on. Nothing is deleted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, SECOND, Scene, freeze, kill9};
use dormouse_lab::{
    Daemon, Guest, Lab,
    api::{Failure, MachineState, Outcome},
    guest::Image,
    wait_until,
};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

fn boot(prefix: &str) -> Scene {
    Scene::boot(prefix, FAST_SAMPLES, Guest::new("web", 2).dirty(10))
}

/// Refused with a reason that says what to do; then it is booted afresh, and serves.
#[track_caller]
fn starts_cold(scene: &Scene) {
    scene.start(&["--cold"]);
    scene.wait(MachineState::Active);
    scene.page();
}

/// A wake fails, with these words in its chain of causes, and nobody answers for it any more.
#[track_caller]
fn wake_fails(scene: &Scene, parts: &[&str]) -> Failure {
    let mark = scene.mark();
    let said = scene.refused(&["wake", scene.name()], 1);
    for part in parts {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    let failure = scene.failed(mark, parts);
    assert!(scene.client.ping(scene.guest.ip(), SECOND / 5).is_err(), "it is still answered for");
    failure
}

#[test]
fn a_state_that_is_missing_or_damaged() {
    let scene = boot("state");
    let before = scene.before();
    let (state, ram) = (scene.machine_dir().join("state"), scene.machine_dir().join("ram"));

    // Missing: the rest stays, and with the file put back it wakes as it was.
    scene.sleep();
    let aside = scene.lab.dir().join("aside");
    fs::rename(&state, &aside).unwrap();
    let failure = wake_fails(&scene, &["state", "missing"]);
    assert!(failure.state_kept, "{failure:?}");
    assert!(ram.exists() && scene.machine_dir().join("state.json").exists());
    assert!(scene.refused(&["wake", "web"], 1).contains("missing"));
    fs::rename(&aside, &state).unwrap();
    scene.daemon.wake("web").unwrap();
    assert_eq!(scene.before(), before);

    // One flipped bit: found by a packet's wake, refused by every later one, kept for whoever can mend it.
    scene.sleep();
    let mark = scene.mark();
    flip(&state, fs::metadata(&state).unwrap().len() / 2);
    let _ = scene.client.tcp_connect(scene.web(), SECOND);
    scene.failed(mark, &["damaged", "checksum"]);
    wake_fails(&scene, &["damaged", "checksum"]);
    assert!(state.exists() && ram.exists());
    starts_cold(&scene);
    let second = scene.before();
    assert_ne!(second.boot_id, before.boot_id);

    // Memory that was written behind our back.
    scene.sleep();
    flip(&ram, 1 << 20);
    wake_fails(&scene, &["damaged", "ram", "written after"]);
    starts_cold(&scene);
    assert_ne!(scene.before().boot_id, second.boot_id);
}

/// What happened to the files while the daemon was down is found at the wake, or before.
#[test]
fn a_state_that_vanished_while_the_daemon_was_down() {
    let mut scene = boot("vanished");
    scene.sleep();
    scene.daemon.kill9().unwrap();
    for name in ["state", "state.json"] {
        fs::remove_file(scene.machine_dir().join(name)).unwrap();
    }
    scene.restart("");
    scene.failed(0, &["missing"]);
    let told = scene.entered(0, MachineState::Failed);
    assert!(told.figures.get("took_ms").is_none_or(|took| *took < 60_000.0), "{told:?}");
    let said = scene.refused(&["wake", "web"], 4);
    assert!(said.contains("start --cold"), "{said}");
    assert!(scene.machine_dir().join("ram").exists());
    starts_cold(&scene);
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn qemu_dies_at_any_step() {
    let scene = boot("dies");
    let stuck = |verb: &str| {
        let mark = scene.mark();
        freeze(scene.qemu());
        scene.daemon.run(&[verb, "--no-wait", "web"]).unwrap();
        mark
    };
    // While it runs.
    let mark = scene.mark();
    kill9(scene.qemu());
    scene.failed(mark, &["signal: 9"]);
    starts_cold(&scene);

    // While it goes to sleep: it answers nobody, and then it is gone.
    let mark = stuck("sleep");
    scene.entered(mark, MachineState::Settling);
    kill9(scene.qemu());
    // If a frame waited in its tap, its sleep is being undone by now, and finds no process.
    let why = scene.failed(mark, &[]).why;
    assert!(why.contains("signal: 9") || why.contains("has no process"), "{why}");
    starts_cold(&scene);

    // While it is paused.
    let mark = scene.mark();
    scene.daemon.run(&["sleep", "--depth", "paused", "web"]).unwrap();
    kill9(scene.qemu());
    scene.failed(mark, &[]);
    assert!(!scene.pings(scene.guest.ip()));
    starts_cold(&scene);

    // While it wakes.
    scene.daemon.run(&["sleep", "--depth", "paused", "web"]).unwrap();
    let mark = stuck("wake");
    scene.entered(mark, MachineState::Waking);
    kill9(scene.qemu());
    scene.failed(mark, &[]);
    starts_cold(&scene);
}

/// A QEMU that dies while it loads leaves the state unused: it wakes as soon as QEMU is mended.
#[test]
fn qemu_dies_while_it_loads() {
    let lab = Lab::new("loads").unwrap();
    let trap = lab.dir().join("trap");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *-incoming*) [ -e {0} ] && {{ echo caught in the trap >&2; exit 3; }};; esac\n\
         exec qemu-system-x86_64 \"$@\"\n",
        trap.display()
    );
    let binary = lab.write("qemu-system-trap", &script).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("{FAST_SAMPLES}[qemu]\nbinary = {binary:?}\n");
    let daemon = Daemon::start_with(&lab, &config, &[]).unwrap();
    let scene = Scene::with(lab, daemon, Guest::new("web", 2).dirty(10));
    scene.start(&[]);
    let before = scene.before();

    scene.sleep();
    fs::write(&trap, "").unwrap();
    let failure = wake_fails(&scene, &["caught in the trap"]);
    assert!(failure.state_kept, "{failure:?}");
    fs::remove_file(&trap).unwrap();
    scene.daemon.wake("web").unwrap();
    assert_eq!(scene.before(), before);
}

#[test]
fn no_space_for_the_state() {
    without_space("state/machines", &["no space left", "state"]);
}

/// What is told first, the state or the registry, depends on the free pages that the registry's file has.
#[test]
fn no_space_for_the_registry_either() {
    without_space("state", &["o space left"]);
}

/// A disk that is full, at this place in the lab: the guest runs on, and sleeps when there is room.
fn without_space(place: &str, parts: &[&str]) {
    let lab = Lab::new("space").unwrap();
    let disk = SmallDisk::mount(&lab, place);
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[]).unwrap();
    // All of the memory is reserved at boot: without it a full disk could end a running guest.
    let guest = Guest::new("web", 2).dirty(10).set("qemu.preallocate", true);
    let scene = Scene::with(lab, daemon, guest);
    scene.start(&[]);
    let before = scene.before();
    let mut echo = scene.client.echo(scene.guest.ip()).unwrap();

    let mark = scene.mark();
    disk.fill();
    let out = scene.daemon.cli(&["sleep", "web"]).unwrap();
    assert!(matches!(out.code, Some(1 | 4)), "{out:?}");
    scene.warned(mark, parts);
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
    echo.say("still here").unwrap();
    scene.goes_on();

    disk.free();
    scene.sleep();
    scene.wait_no_qemu();
    assert_eq!(scene.before(), before);
}

/// A file system in a file. The lab unmounts it when it goes.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mount(lab: &Lab, place: &str) -> Self {
        let at = lab.dir().join(place);
        let image = lab.dir().join("disk.img");
        fs::create_dir_all(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        Self { at }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.at.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).and_then(|()| file.flush()).is_ok() {}
        }
        // Delayed allocation: the blocks are taken only now.
        let _ = file.sync_all();
    }

    fn free(&self) {
        fs::remove_file(self.at.join("filler")).unwrap();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {out:?}");
}

#[test]
fn a_bridge_that_is_missing() {
    let scene = boot("bridge");
    let before = scene.before();

    // At create and start of another machine: the reason names the bridge.
    let image = Image::build().unwrap();
    let interface = [("mac", "52:54:00:00:00:03"), ("bridge", "br9")];
    let interface: toml::Table = interface.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    let other = Guest::new("other", 3).set("interface", vec![toml::Value::from(interface)]);
    let file = other.write(&scene.lab, &image).unwrap();
    let created = scene.daemon.cli(&["create", &file.to_string_lossy()]).unwrap();
    if created.code == Some(0) {
        let said = scene.refused(&["start", "other"], 1);
        assert!(said.contains("br9"), "{said}");
        assert_ne!(scene.daemon.state("other").unwrap(), MachineState::Active);
        scene.daemon.run(&["rm", "--force", "other"]).unwrap();
    } else {
        assert!(created.stderr.contains("br9"), "{created:?}");
    }

    // It goes while a machine sleeps: told at once, and a wake is refused with its name until it is back.
    scene.sleep();
    let mark = scene.mark();
    scene.lab.switch().ip("link del br0\n").unwrap();
    scene.warned(mark, &["br0"]);
    let said = scene.refused(&["wake", "web"], 4);
    assert!(said.contains("br0"), "{said}");
    assert_eq!(scene.state(), MachineState::Asleep);

    // Back again, it wakes as it was.
    scene
        .lab
        .switch()
        .ip("link add br0 type bridge stp_state 0 forward_delay 0\n\
        link set br0 up\nlink set cl0 master br0\n")
        .unwrap();
    scene.daemon.wake("web").unwrap();
    assert_eq!(scene.before(), before);
}

#[test]
fn a_tap_that_another_process_uses() {
    let scene = boot("tap");
    let tap = scene.daemon.show("web").unwrap().interfaces[0].tap.clone().unwrap();
    scene.daemon.run(&["stop", "--force", "web"]).unwrap();
    let in_switch = || dormouse_sys::tap::open(&tap);
    let taken = scene.lab.switch().run(in_switch).unwrap().unwrap();
    let said = scene.refused(&["start", "web"], 1);
    assert!(said.contains(&tap) && said.contains("in use"), "{said}");
    scene.logged(&[&tap, "in use"]);
    scene.goes_on();
    drop(taken);
    starts_or_starts_cold(&scene);
    scene.page();
}

/// A start that failed leaves it failed, from where a cold start leads out.
#[track_caller]
fn starts_or_starts_cold(scene: &Scene) {
    let cold: &[&str] = if scene.state() == MachineState::Failed { &["--cold"] } else { &[] };
    scene.start(cold);
}

#[test]
fn a_guest_that_ignores_its_power_button_is_left_running() {
    let config = format!("{FAST_SAMPLES}[sleep]\nstop_timeout = \"2s\"\n");
    let guest = Guest::new("web", 2).dirty(10).kernel_option("dm.nobutton=1");
    let scene = Scene::boot("button", &config, guest.set("sleep.depth", "off"));
    let before = scene.before();
    let mark = scene.mark();
    let said = scene.refused(&["sleep", "web"], 4);
    assert!(said.contains("shut"), "{said}");
    let undoing = scene.entered(mark, MachineState::Undoing);
    assert!(undoing.cause.as_ref().is_some_and(|c| c.contains("shut")), "{undoing:?}");
    scene.warned(mark, &["shut down", "took more than 2s"]);
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);

    // Nor does a stop harm it, except by force.
    let said = scene.refused(&["stop", "--timeout", "1s", "web"], 4);
    assert!(!said.is_empty());
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
    let stopped: Outcome = scene.daemon.json(&["stop", "--force", "web"]).unwrap();
    assert_eq!(stopped.state, MachineState::Stopped);
    let gone =
        wait_until("QEMU to be gone", Duration::from_secs(5), || Ok(scene.lab.qemu_pids()?.is_empty()));
    gone.unwrap();
    assert!(scene.client.ping(scene.guest.ip(), LONG / 300).is_err());
}
