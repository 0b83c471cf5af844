//! Damage, death and full disks.

use std::{fs, path::PathBuf, process::Command};

use dormouse_machine::lifecycle::Process;
use dormouse_platform::{Error, Instance, Notice, qemu::Settings};

use crate::bench::{Bench, chain, observed};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_used_state_is_refused_and_kept() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.asleep().await;
    let state = bench.file("state");
    let good = fs::read(&state).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&state, bad).unwrap();
    let error = bench.qemu.load().await.unwrap_err();
    assert!(matches!(&error, Error::StateDamaged { path, .. } if *path == state), "{error}");
    assert_eq!(bench.seen().await, observed(Process::Absent, true));

    fs::write(&state, good).unwrap();
    bench.qemu.load().await.unwrap();
    // Ended before its guest ran: nothing was used.
    bench.qemu.kill().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
    bench.qemu.kill().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
    assert!(matches!(bench.qemu.load().await, Err(Error::NoState { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_qemu_cannot_read_is_given_back() {
    let mut bench = Bench::new(|_| ());
    bench.booted().await;
    bench.asleep().await;
    // A program that fails as QEMU would on a state that it does not understand.
    bench.settings.program = "/bin/false".into();
    let error = bench.restarted().load().await.unwrap_err();
    assert!(matches!(&error, Error::Exited { status, .. } if status.contains("exit status: 1")), "{error}");
    bench.settings.program = Settings::default().program;
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Absent, true));
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    // A machine of another make.
    bench.asleep().await;
    bench.config.qemu.cpus = 2;
    let error = bench.restarted().load().await.unwrap_err();
    assert!(matches!(&error, Error::StateForeign { what } if what.contains("-smp 2")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_qemu_is_told_with_its_reason() {
    let mut bench = Bench::new(|_| ());
    bench.booted().await;
    let kill = |pid: Option<u32>| {
        let pid = rustix::process::Pid::from_raw(pid.unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let pid = bench.qemu.facts().await.pid;
    kill(pid);
    let notice = bench.notices.recv().await.unwrap();
    assert!(!process(pid).exists(), "told, but not reaped");
    assert!(matches!(&notice, Notice::Exited(_, why) if why.contains("signal: 9")), "{notice:?}");
    assert!(matches!(bench.qemu.save().await, Err(Error::NotRunning)));

    // While it saves.
    bench.booted().await;
    let pid = bench.qemu.facts().await.pid;
    let (saved, ()) = tokio::join!(bench.qemu.save(), async {
        while !bench.file("state").exists() {
            tokio::task::yield_now().await;
        }
        kill(pid);
    });
    println!("killed while saving: {:?}", saved.as_ref().map_err(|e| chain(e)));
    let flushed = bench.qemu.flush().await;
    assert!(saved.is_err() || flushed.is_err());
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
    bench.booted().await;
    let pid = bench.qemu.facts().await.pid;
    bench.asleep().await;
    assert!(!process(pid).exists(), "asleep, but not reaped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_undoes_the_sleep() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mount = Mount::new(dir.path());
    let bench = Bench::within(dir, |_| ());
    let tick = bench.booted().await;
    let filler = bench.settings.machines_dir.join("filler");
    // Ends when the disk is full.
    let _ = fs::File::create(&filler).and_then(|mut f| std::io::copy(&mut std::io::repeat(1), &mut f));
    let error = bench.qemu.save().await.unwrap_err();
    println!("{}", chain(&error));
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    fs::remove_file(filler).unwrap();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
    drop(bench);
    drop(mount);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_too_small_for_all_memory_refuses_the_boot_if_asked() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mount = Mount::new(dir.path());
    let mut bench = Bench::within(dir, |config| {
        config.preallocate = true;
        config.qemu.memory = 512 << 20;
    });
    let error = bench.qemu.boot().await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    bench.config.qemu.memory = 256 << 20;
    bench.restarted().boot().await.unwrap();
    assert!(bench.qemu.facts().await.disk_bytes >= 256 << 20);
    drop(bench);
    drop(mount);
}

/// A small file system of its own, gone at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &std::path::Path) -> Self {
        let options = ["-t", "tmpfs", "-o", "size=300m,mode=0700", "dormouse-test"];
        assert!(Command::new("mount").args(options).arg(at).status().unwrap().success());
        Self(at.into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn process(pid: Option<u32>) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.unwrap()))
}
