//! The QEMU driver on real guests. Needs root, QEMU and the lab's guest image.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use dormouse_machine::{
    lifecycle::{Observed, Process},
    spec::{Accel, DiskFormat, DiskSpec, InterfaceSpec, MachineType, MemoryBacking, QemuSpec},
};
use dormouse_net::Net;
use dormouse_platform::{
    Error, Instance, Notice,
    qemu::{Qemu, QemuConfig, Settings},
};
use tokio::{sync::mpsc, time::sleep};

/// A guest that does nothing but count on its console, so that it boots in a second.
const TICKS: &str =
    "console=ttyS0 quiet rdinit=/bin/sh -- -c \"n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done\"";

fn guest_image() -> PathBuf {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE
        .get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../lab/guest/build.sh");
            let built = Command::new(script).output().unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            String::from_utf8(built.stdout).unwrap().trim().into()
        })
        .clone()
}

/// A machine in a scratch directory, whose process ends with it.
struct Bench {
    qemu: Qemu,
    config: QemuConfig,
    settings: Settings,
    notices: mpsc::Receiver<Notice>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(adjust: impl FnOnce(&mut QemuConfig)) -> Self {
        // Not in /tmp, which may be in memory: RAM files are to be written to a disk.
        let dir = tempfile::Builder::new().prefix("dormouse-platform-").tempdir_in("/var/tmp").unwrap();
        Self::within(dir, adjust)
    }

    fn within(dir: tempfile::TempDir, adjust: impl FnOnce(&mut QemuConfig)) -> Self {
        let image = guest_image();
        let mut config = QemuConfig {
            name: "guest".parse().unwrap(),
            qemu: QemuSpec {
                memory: 256 << 20,
                cpus: 1,
                machine: MachineType::Q35,
                accel: Accel::Tcg,
                memory_backing: None,
                preallocate: None,
                disks: Vec::new(),
                kernel: Some(image.join("vmlinuz")),
                initrd: Some(image.join("initrd.img")),
                cmdline: Some(TICKS.into()),
            },
            interfaces: Vec::new(),
            memory_backing: MemoryBacking::File,
            preallocate: false,
        };
        adjust(&mut config);
        let settings = Settings { machines_dir: dir.path().into(), ..Settings::default() };
        let (sender, notices) = mpsc::channel(8);
        let qemu = Qemu::new(config.clone(), settings.clone(), Net::connect().unwrap(), sender).unwrap();
        Self { qemu, config, settings, notices, _dir: dir }
    }

    /// Another driver for the same machine, as after a restart of the daemon.
    fn restarted(&mut self) -> &Qemu {
        let (sender, notices) = mpsc::channel(8);
        self.qemu =
            Qemu::new(self.config.clone(), self.settings.clone(), Net::connect().unwrap(), sender).unwrap();
        self.notices = notices;
        &self.qemu
    }

    fn file(&self, name: &str) -> PathBuf {
        self.settings.machines_dir.join("guest").join(name)
    }

    fn last_tick(&self) -> u64 {
        let text = fs::read(self.file("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let ticks = whole.lines().filter_map(|l| l.trim().strip_prefix("tick ")?.parse().ok());
        ticks.max().unwrap_or(0)
    }

    async fn ticks_beyond(&self, tick: u64) -> u64 {
        let start = Instant::now();
        while self.last_tick() <= tick {
            assert!(start.elapsed() < Duration::from_secs(60), "no tick after {tick}: {}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
        self.last_tick()
    }

    fn logs(&self) -> String {
        ["qemu.log", "console.log"]
            .map(|f| fs::read_to_string(self.file(f)).unwrap_or_default())
            .join("\n---\n")
    }

    async fn booted(&self) -> u64 {
        self.qemu.boot().await.unwrap();
        self.ticks_beyond(2).await
    }

    async fn asleep(&self) {
        self.qemu.save().await.unwrap();
        self.qemu.flush().await.unwrap();
        self.qemu.quit().await.unwrap();
    }

    async fn seen(&self) -> Observed {
        self.qemu.observe().await.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let kill = || async { self.qemu.kill().await };
        let done = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(kill()));
        if let Err(error) = done {
            eprintln!("a guest may remain: {error}");
        }
    }
}

fn observed(process: Process, saved_state: bool) -> Observed {
    Observed { process, saved_state }
}

async fn timed<T>(what: &str, work: impl Future<Output = Result<T, Error>>) -> T {
    let start = Instant::now();
    let value = work.await.unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
    println!("{what:>8} {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    value
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_machine_goes_on_where_it_was() {
    let bench = Bench::new(|_| ());
    timed("boot", bench.qemu.boot()).await;
    let mut tick = bench.ticks_beyond(3).await;
    for _ in 0..5 {
        timed("save", bench.qemu.save()).await;
        assert_eq!(bench.seen().await, observed(Process::Still, false));
        let before = bench.last_tick();
        timed("flush", bench.qemu.flush()).await;
        let awake = bench.qemu.facts().await;
        timed("quit", bench.qemu.quit()).await;
        assert_eq!(bench.seen().await, observed(Process::Absent, true));
        let asleep = bench.qemu.facts().await;
        println!("resident {} -> {} MiB", awake.resident_bytes >> 20, asleep.resident_bytes >> 20);
        assert!(asleep.resident_bytes < awake.resident_bytes / 10);
        assert_eq!(asleep.pid, None);
        assert_eq!(bench.last_tick(), before, "the guest ran while it was asleep");
        timed("load", bench.qemu.load()).await;
        assert_eq!(bench.seen().await, observed(Process::Incoming, true));
        assert_eq!(bench.last_tick(), before, "the guest ran before resume");
        timed("resume", bench.qemu.resume()).await;
        assert_eq!(bench.seen().await, observed(Process::Running, false));
        let after = bench.ticks_beyond(before).await;
        assert!(after >= before && after < before + 100 && before >= tick, "{tick} {before} {after}");
        tick = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_is_undone_at_every_step() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.qemu.pause().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Still, false));
    bench.qemu.resume().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;

    bench.qemu.save().await.unwrap();
    bench.qemu.resume().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;

    bench.qemu.save().await.unwrap();
    bench.qemu.flush().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Still, true));
    bench.qemu.resume().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Running, false));
    bench.qemu.discard_state().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;
    assert!(matches!(bench.qemu.load().await, Err(Error::AlreadyRunning { .. })));

    // And it can still sleep.
    bench.asleep().await;
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}

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
async fn the_death_of_qemu_is_told_with_its_reason() {
    let mut bench = Bench::new(|_| ());
    bench.booted().await;
    let kill = |pid: Option<u32>| {
        let pid = rustix::process::Pid::from_raw(pid.unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(bench.qemu.facts().await.pid);
    let notice = bench.notices.recv().await.unwrap();
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_down_is_told_from_one_that_dies() {
    let mut bench = Bench::new(|config| {
        config.qemu.cmdline =
            Some("console=ttyS0 quiet rdinit=/bin/sh -- -c \"echo tick 3; poweroff -f\"".into());
    });
    bench.booted().await;
    let notice = bench.notices.recv().await.unwrap();
    assert_eq!(notice, Notice::GuestShutdown("guest".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_shut_down_it_does_or_is_reported() {
    let mut bench = Bench::new(|config| config.qemu.cmdline = Some("console=ttyS0 quiet".into()));
    bench.qemu.boot().await.unwrap();
    while !bench.logs().contains("READY") {
        sleep(Duration::from_millis(50)).await;
    }
    timed("poweroff", bench.qemu.power_down(Duration::from_secs(30))).await;
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
    assert!(bench.notices.try_recv().is_err(), "it was asked to");

    bench.config.qemu.cmdline = Some("console=ttyS0 quiet dm.nobutton=1".into());
    bench.restarted().boot().await.unwrap();
    let error = bench.qemu.power_down(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_no_file_is_saved_whole() {
    let bench = Bench::new(|config| config.memory_backing = MemoryBacking::Anonymous);
    assert!(!bench.qemu.capabilities().lazy_memory);
    let tick = bench.booted().await;
    timed("save", bench.qemu.save()).await;
    timed("flush", bench.qemu.flush()).await;
    timed("quit", bench.qemu.quit()).await;
    assert!(fs::metadata(bench.file("state")).unwrap().len() > 20 << 20);
    assert_eq!(bench.qemu.facts().await.resident_bytes, 0);
    timed("load", bench.qemu.load()).await;
    timed("resume", bench.qemu.resume()).await;
    let tick = bench.ticks_beyond(tick).await;

    // Wanted while it is being saved: the guest goes on.
    let (saved, ()) = tokio::join!(bench.qemu.save(), async {
        while !bench.file("state").exists() {
            tokio::task::yield_now().await;
        }
        bench.qemu.hurry().await;
    });
    println!("hurried: {:?}", saved.as_ref().map_err(|e| chain(e)));
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microvm_sleeps_as_well() {
    let bench = Bench::new(|config| config.qemu.machine = MachineType::Microvm);
    // Its kernel hangs in one of three boots under TCG, with and without us.
    let mut tries = 0..10;
    let tick = loop {
        assert!(tries.next().is_some(), "it never booted: {}", bench.logs());
        bench.qemu.boot().await.unwrap();
        if let Ok(tick) = tokio::time::timeout(Duration::from_secs(8), bench.ticks_beyond(2)).await {
            break tick;
        }
        bench.qemu.kill().await.unwrap();
    };
    bench.asleep().await;
    timed("load", bench.qemu.load()).await;
    timed("resume", bench.qemu.resume()).await;
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_written_through_a_sleep_and_locked() {
    let cmdline = "console=ttyS0 quiet rdinit=/bin/sh -- -c \"mount -t devtmpfs d /dev; cd /lib/modules; \
        for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod $m.ko; done; \
        n=0; while :; do n=$((n+1)); echo tick $n | dd of=/dev/vda conv=sync,fsync bs=512 2>/dev/null && dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n1; sleep 0.1; done\"";
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = |name: &str, format| {
        let image = scratch.path().join(name);
        let kind = if format == DiskFormat::Raw { "raw" } else { "qcow2" };
        assert!(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", kind])
                .arg(&image)
                .arg("16M")
                .status()
                .unwrap()
                .success()
        );
        DiskSpec { image, format, readonly: false }
    };
    for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
        let name = format!("{format:?}");
        let image = disk(&name, format);
        let bench = Bench::new(|config| {
            config.qemu.cmdline = Some(cmdline.into());
            config.qemu.disks = vec![image.clone()];
        });
        let tick = bench.booted().await;
        bench.qemu.save().await.unwrap();
        bench.qemu.resume().await.unwrap();
        let tick = bench.ticks_beyond(tick).await;
        bench.asleep().await;
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        bench.ticks_beyond(tick).await;
        assert!(bench.qemu.counters().await.unwrap().disk_bytes > 0);

        let second = Bench::new(|config| config.qemu.disks = vec![image]);
        let error = chain(&second.qemu.boot().await.unwrap_err());
        println!("{error}");
        assert!(error.contains("lock"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_tell_a_busy_guest_from_one_that_waits() {
    let bench = Bench::new(|config| {
        config.qemu.cmdline = Some(
            "console=ttyS0 quiet rdinit=/bin/sh -- -c \"echo tick 3; sleep 3; while :; do :; done\"".into(),
        );
    });
    bench.booted().await;
    sleep(Duration::from_secs(1)).await;
    let mut spent = Vec::new();
    for _ in 0..2 {
        let before = bench.qemu.counters().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let after = bench.qemu.counters().await.unwrap();
        spent.push((after.cpu - before.cpu).as_secs_f64() / after.at.since(before.at).as_secs_f64());
        sleep(Duration::from_secs(2)).await;
    }
    println!("share of a processor: {spent:?}");
    assert!(spent[0] < 0.25 && spent[1] > 0.3);
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

/// Runs a test on a thread in a network namespace of its own, which ends with it.
fn in_own_network<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(args: &str) {
    assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

#[test]
fn a_connection_goes_on_after_a_sleep() {
    in_own_network(|| async {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.9.0.1/24 dev br0");
        let interface = InterfaceSpec {
            mac: "52:54:00:00:00:02".parse().unwrap(),
            bridge: "br0".into(),
            addresses: Vec::new(),
        };
        let mut bench = Bench::new(|config| {
            config.qemu.cmdline = Some("console=ttyS0 quiet dm.ip=10.9.0.2/24".into());
            config.interfaces = vec![interface];
        });
        let ports = bench.qemu.attach().await.unwrap();
        assert!(ports[0].tap.len() <= 15 && ports[0].queue.is_some());
        bench.qemu.boot().await.unwrap();
        while !bench.logs().contains("READY") {
            sleep(Duration::from_millis(50)).await;
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
        let sent = bench.qemu.counters().await.unwrap().network_bytes;
        assert!(sent > 0);
        bench.asleep().await;
        timed("load", bench.qemu.load()).await;
        timed("resume", bench.qemu.resume()).await;
        echo("after");
        assert!(bench.qemu.counters().await.unwrap().network_bytes > sent);

        // A later daemon gets at the queue that QEMU has.
        let adopted = bench.restarted().attach().await.unwrap();
        assert_eq!(adopted[0].tap, ports[0].tap);
        assert!(adopted[0].queue.is_some());
        echo("adopted");
        bench.asleep().await;
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("again");

        bench.qemu.kill().await.unwrap();
        drop((ports, adopted));
        bench.qemu.detach().await.unwrap();
        assert!(Net::connect().unwrap().links().await.unwrap().iter().all(|l| !l.name.starts_with("dm")));
        ip("link del br0");
        let error = chain(&bench.qemu.boot().await.unwrap_err());
        println!("{error}");
        assert!(error.contains("br0"), "{error}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hurried_flush_leaves_no_saved_state() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    for _ in 0..10 {
        bench.qemu.save().await.unwrap();
        let (flushed, ()) = tokio::join!(bench.qemu.flush(), bench.qemu.hurry());
        println!("{:?}", flushed.map_err(|e| chain(&e)));
        bench.qemu.resume().await.unwrap();
        assert_eq!(bench.seen().await, observed(Process::Running, false));
    }
    // What was still being written has come to its end by now.
    bench.ticks_beyond(tick + 5).await;
    assert_eq!(bench.seen().await, observed(Process::Running, false));
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
        assert!(seen.saved_state, "the guest never ran");
        if seen.process == Process::Absent {
            bench.qemu.load().await.unwrap();
        }
        bench.qemu.resume().await.unwrap();
        tick = bench.ticks_beyond(tick).await;
    }
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
