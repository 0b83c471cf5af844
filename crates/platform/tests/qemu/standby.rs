//! Processes that wait with the saved state read.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use dormouse_machine::{
    lifecycle::Process,
    spec::{DiskFormat, InterfaceSpec, MemoryBacking},
};
use dormouse_platform::{Error, Instance};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench::{Bench, DISK_TICKS, TICKS, disk, observed, qemu_img, timed},
    network::{in_own_network, ip},
};

/// Processes that have the machine's lock, by the number under which they have it.
fn holders(bench: &Bench) -> Vec<i32> {
    let lock = fs::metadata(bench.file("lock")).unwrap().ino();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::metadata(format!("/proc/{pid}/fd/5")).is_ok_and(|m| m.ino() == lock)).collect()
}

fn the_standby(bench: &Bench) -> i32 {
    let holders = holders(bench);
    assert_eq!(holders.len(), 1, "{}", bench.logs());
    holders[0]
}

fn kill_9(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    while Path::new("/proc").join(pid.to_string()).exists() {
        std::thread::yield_now();
    }
}

/// What a file holds, and when it was last changed.
fn content(path: &Path) -> (String, i64, i64) {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(out.status.success());
    let meta = fs::metadata(path).unwrap();
    (String::from_utf8(out.stdout).unwrap(), meta.mtime(), meta.mtime_nsec())
}

async fn is_ready_and_hidden(bench: &Bench) {
    assert!(bench.qemu.warm().await.unwrap());
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
    assert_eq!(bench.qemu.facts().await.pid, None);
}

async fn wakes(bench: &Bench, tick: u64) -> u64 {
    timed("load", bench.qemu.load()).await;
    assert_eq!(bench.seen().await, observed(Process::Incoming, true));
    assert!(bench.file("state.used").exists() && !bench.file("state.json").exists());
    timed("resume", bench.qemu.resume()).await;
    assert_eq!(bench.seen().await, observed(Process::Running, false));
    assert_eq!(bench.qemu.standby_bytes().await, None);
    bench.ticks_beyond(tick).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_changes_nothing_and_leaves_nothing() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let images = [DiskFormat::Qcow2, DiskFormat::Raw].map(|format| disk(scratch.path(), format));
    let mut bench = Bench::new(|config| {
        config.qemu.cmdline = Some(DISK_TICKS.into());
        config.qemu.disks = images.to_vec();
    });
    let tick = bench.booted().await;
    bench.asleep().await;
    let files = [bench.file("ram"), bench.file("state"), bench.file("state.json")]
        .into_iter()
        .chain(images.iter().map(|d| d.image.clone()))
        .collect::<Vec<_>>();
    let before: Vec<_> = files.iter().map(|f| content(f)).collect();
    let resident = bench.qemu.facts().await.resident_bytes.unwrap();
    is_ready_and_hidden(&bench).await;
    println!(
        "standby {} KiB; of the machine resident {} -> {} KiB",
        bench.qemu.standby_bytes().await.unwrap() >> 10,
        resident >> 10,
        bench.qemu.facts().await.resident_bytes.unwrap() >> 10
    );
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", the_standby(&bench))).unwrap();
    println!("{rollup}");
    assert_eq!(before, files.iter().map(|f| content(f)).collect::<Vec<_>>());
    // A second one is not made.
    assert!(bench.qemu.warm().await.unwrap());
    let pid = the_standby(&bench);
    // Its disks are anybody's, as those of any sleeper, and what was done to them counts.
    let image = images[0].image.to_str().unwrap();
    qemu_img(&["snapshot", "-c", "while-asleep", image]);
    let with_snapshot: Vec<_> = files.iter().map(|f| content(f)).collect();
    // It ends by itself: nobody is told, and nothing has changed.
    kill_9(pid);
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
    assert!(bench.notices.try_recv().is_err(), "the end of a standby is no news");
    assert_eq!(bench.qemu.standby_bytes().await, None);
    assert_eq!(with_snapshot, files.iter().map(|f| content(f)).collect::<Vec<_>>());
    let tick = wakes(&bench, tick).await;

    // And by way of one, after which the disk is the guest's alone.
    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    let pid = the_standby(&bench);
    qemu_img(&["snapshot", "-c", "beside-a-standby", image]);
    let tick = wakes(&bench, tick).await;
    assert_eq!(the_standby(&bench), pid);
    let second = Bench::new(|config| config.qemu.disks = images.to_vec());
    second.qemu.boot().await.unwrap_err();
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = state.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(16).unwrap().to_owned();
    assert_eq!(nice, "0", "of a guest that runs");
    bench.ticks_beyond(tick).await;
    bench.qemu.kill().await.unwrap();
    qemu_img(&["check", "-q", image]);
    qemu_img(&["snapshot", "-a", "beside-a-standby", image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_none_of_a_machine_that_does_not_sleep_saved() {
    let bench = Bench::new(|_| ());
    assert!(!bench.qemu.warm().await.unwrap(), "it is off");
    let tick = bench.booted().await;
    assert!(!bench.qemu.warm().await.unwrap(), "it runs");
    bench.qemu.pause().await.unwrap();
    assert!(!bench.qemu.warm().await.unwrap(), "it is paused");
    bench.qemu.resume().await.unwrap();
    bench.qemu.save().await.unwrap();
    bench.qemu.flush().await.unwrap();
    assert!(!bench.qemu.warm().await.unwrap(), "it still has its process");
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
    drop(bench);
    let bench = Bench::new(|config| config.memory_backing = MemoryBacking::Anonymous);
    bench.booted().await;
    bench.asleep().await;
    assert!(!bench.qemu.warm().await.unwrap(), "it would have all of the memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_takes_over_a_standby_however_far_it_is() {
    let bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    for after in (0..50).step_by(5) {
        bench.asleep().await;
        let (warmed, ()) = tokio::join!(bench.qemu.warm(), async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            bench.qemu.load().await.unwrap();
        });
        println!("woken after {after} ms: {warmed:?}");
        warmed.unwrap();
        bench.qemu.resume().await.unwrap();
        assert_eq!(holders(&bench).len(), 1);
        tick = bench.ticks_beyond(tick).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_daemon_finds_the_standby_or_ends_it() {
    let mut bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    for left_after in (0..70).step_by(10).chain([10_000]) {
        bench.asleep().await;
        let _ = tokio::time::timeout(Duration::from_millis(left_after), bench.qemu.warm()).await;
        let made = holders(&bench);
        assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Absent, true));
        println!("left after {left_after} ms: {made:?}, kept {:?}", bench.qemu.standby_bytes().await);
        assert!(bench.file("state.json").exists());
        tick = wakes(&bench, tick).await;
        assert!(left_after < 10_000 || holders(&bench) == made, "a whole one is kept and used");
    }
    // A daemon that dies in a wake by way of a standby.
    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    bench.qemu.load().await.unwrap();
    assert_eq!(bench.restarted().observe().await.unwrap(), observed(Process::Incoming, true));
    bench.qemu.resume().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;
    // And the process with it, or instead.
    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    bench.qemu.load().await.unwrap();
    kill_9(the_standby(&bench));
    bench.qemu.resume().await.unwrap_err();
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
    wakes(&bench, tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_goes_before_what_it_waits_for() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.asleep().await;
    for _ in 0..2 {
        is_ready_and_hidden(&bench).await;
        bench.qemu.cool().await.unwrap();
        assert!(holders(&bench).is_empty());
    }
    is_ready_and_hidden(&bench).await;
    bench.qemu.kill().await.unwrap();
    assert!(holders(&bench).is_empty());
    assert_eq!(bench.seen().await, observed(Process::Absent, true));
    // A memory that was changed is refused, with a standby as without.
    is_ready_and_hidden(&bench).await;
    let ram = fs::File::options().write(true).open(bench.file("ram")).unwrap();
    let times = ram.metadata().unwrap().modified().unwrap();
    ram.set_modified(times + Duration::from_secs(1)).unwrap();
    assert!(matches!(bench.qemu.load().await, Err(Error::StateDamaged { .. })));
    ram.set_modified(times).unwrap();
    let tick = wakes(&bench, tick).await;
    assert!(tick > 0);

    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    bench.qemu.discard_state().await.unwrap();
    assert!(holders(&bench).is_empty());
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
    bench.booted().await;
    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    // Afresh, and the memory is another file.
    bench.booted().await;
    bench.asleep().await;
    is_ready_and_hidden(&bench).await;
    bench.qemu.erase().await.unwrap();
    assert!(!bench.file("lock").exists());
}

/// The guest's clock stands still between the reading of its state and its first instruction.
#[tokio::test(flavor = "multi_thread")]
async fn no_time_passes_for_the_guest_of_a_standby() {
    let bench = Bench::new(|config| {
        let uptime = TICKS.replace("n=0;", "mount -t proc p /proc; n=0;");
        let uptime = uptime.replace("n=$((n+1))", "n=$((n+1)); read up rest </proc/uptime; echo up $up");
        config.qemu.cmdline = Some(uptime);
    });
    let up = || {
        let text = fs::read(bench.file("console.log")).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut ups = text.lines().filter_map(|l| l.trim().strip_prefix("up ")?.parse::<f64>().ok());
        ups.next_back().unwrap()
    };
    let tick = bench.booted().await;
    let (began, before) = (Instant::now(), up());
    bench.asleep().await;
    let mut ran = began.elapsed();
    is_ready_and_hidden(&bench).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    bench.qemu.load().await.unwrap();
    let resumed = Instant::now();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick + 2).await;
    let passed = up() - before;
    ran += resumed.elapsed();
    println!("it ran for {ran:?}, and {passed} s passed for it");
    assert!(passed <= ran.as_secs_f64() + 0.1);
}

#[test]
fn a_standby_does_without_its_tap_until_the_wake() {
    in_own_network(|| async {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.9.0.1/24 dev br0");
        let mut bench = Bench::new(|config| {
            config.qemu.cmdline = Some("console=ttyS0 quiet no_timer_check dm.ip=10.9.0.2/24".into());
            config.interfaces = vec![InterfaceSpec {
                mac: "52:54:00:00:00:02".parse().unwrap(),
                bridge: "br0".into(),
                addresses: Vec::new(),
            }];
        });
        bench.qemu.boot().await.unwrap();
        while !bench.logs().contains("READY") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let connect = || std::net::TcpStream::connect("10.9.0.2:7");
        let mut stream = tokio::task::block_in_place(connect).unwrap();
        let mut echo = |text: &str| {
            use std::io::{Read, Write};
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = vec![0; text.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, text.as_bytes());
        };
        echo("before");
        bench.asleep().await;
        let tap = bench.qemu.attach().await.unwrap()[0].tap.clone();
        ip(&format!("link set {tap} down"));
        is_ready_and_hidden(&bench).await;
        // What the surrogate does in a sleep, and in a wake.
        ip(&format!("link set {tap} up"));
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("by way of a standby");

        // A later daemon gets at the tap by way of the standby.
        bench.asleep().await;
        is_ready_and_hidden(&bench).await;
        let pid = the_standby(&bench);
        assert!(bench.restarted().attach().await.unwrap()[0].queue.is_some());
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        assert_eq!(the_standby(&bench), pid);
        echo("by way of an adopted one");

        // Frames that come to the tap early do not use up the state.
        bench.asleep().await;
        is_ready_and_hidden(&bench).await;
        let ram = content(&bench.file("ram"));
        let caller = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        for _ in 0..20 {
            caller.send_to(b"x", "10.9.0.2:7777").unwrap();
        }
        assert_eq!(content(&bench.file("ram")), ram);
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("with frames that came early");

        // One whose tap was deleted is of no use.
        bench.asleep().await;
        is_ready_and_hidden(&bench).await;
        let pid = the_standby(&bench);
        ip(&format!("link del {tap}"));
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        assert_ne!(the_standby(&bench), pid);
        echo("with another tap");
        bench.qemu.kill().await.unwrap();
    });
}
