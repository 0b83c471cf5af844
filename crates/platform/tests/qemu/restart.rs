//! What a later daemon finds.

use std::{fs, process::Command, time::Duration};

use dormouse_machine::lifecycle::{Observed, Process, StateOnDisk};
use dormouse_platform::Instance;

use crate::bench::{Bench, observed};

#[tokio::test(flavor = "multi_thread")]
async fn a_later_daemon_finds_the_machine_in_every_state() {
    let mut bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    let pid = bench.qemu.facts().await.pid;
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Running, false));
    assert_eq!(bench.qemu.facts().await.pid, pid);
    let tick = bench.ticks_beyond(tick).await;

    bench.qemu.save().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Still, false));
    bench.qemu.flush().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Still, true));
    bench.qemu.quit().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Absent, true));

    bench.qemu.load().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Incoming, true));
    bench.qemu.resume().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Running, false));
    bench.ticks_beyond(tick).await;

    bench.qemu.pause().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Still, false));
    // One whose guest never ran, ended by another daemon than loaded it.
    bench.asleep().await;
    bench.qemu.load().await.unwrap();
    bench.restarted().kill().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_a_daemon_left_half_done_is_completed() {
    let mut bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    for left_after in (0..60).step_by(6) {
        bench.asleep().await;
        let left = tokio::time::timeout(Duration::from_millis(left_after), bench.qemu.load()).await;
        let seen = bench.restarted().observe().await.unwrap();
        println!(
            "left after {left_after} ms ({}): {seen:?}",
            if left.is_ok() { "loaded" } else { "loading" }
        );
        assert_eq!(seen.saved_state, StateOnDisk::Whole, "the guest never ran");
        if seen.process == Process::Absent {
            bench.qemu.load().await.unwrap();
        }
        bench.qemu.resume().await.unwrap();
        tick = bench.ticks_beyond(tick).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_good_after_a_power_cut_beside_its_load() {
    let mut bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.asleep().await;
    bench.qemu.load().await.unwrap();
    // Daemon and process are gone, with nobody to give the state back.
    let pid = bench.qemu.facts().await.pid.unwrap();
    bench.restarted();
    let process = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    while std::path::Path::new("/proc").join(pid.to_string()).exists() {
        tokio::task::yield_now().await;
    }
    let taken = Observed { process: Process::Absent, saved_state: StateOnDisk::Taken };
    assert_eq!(bench.seen().await, taken);
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}

/// A process that has the machine's lock, but is no QEMU that answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_adopted_costs_nothing_each_time() {
    let bench = Bench::new(|_| ());
    let script = "exec 5>>$0; flock 5; echo; exec sleep 60";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(bench.file("lock"));
    let mut stuck = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(stuck.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let watchers = || {
        let comms = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path().join("comm"));
        let wanted = format!("watch {}\n", stuck.id());
        comms.filter(|comm| fs::read_to_string(comm).is_ok_and(|comm| comm == wanted)).count()
    };
    for _ in 0..3 {
        let error = bench.qemu.observe().await.unwrap_err();
        assert!(error.to_string().contains("qmp.sock"), "{error}");
    }
    assert_eq!(watchers(), 0);
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
}
