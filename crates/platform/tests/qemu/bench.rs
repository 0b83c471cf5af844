//! A machine in a scratch directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use dormouse_machine::{
    lifecycle::{Observed, Process, StateOnDisk},
    spec::{Accel, DiskFormat, DiskSpec, MachineType, MemoryBacking, QemuSpec},
};
use dormouse_net::Net;
use dormouse_platform::{
    Error, Instance, Notice,
    qemu::{Qemu, QemuConfig, Settings},
};
use tokio::{sync::mpsc, time::sleep};

/// A guest that does nothing but count on its console, so that it boots in a second.
pub const TICKS: &str = "console=ttyS0 quiet no_timer_check rdinit=/bin/sh -- -c \"n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done\"";

/// As [`TICKS`], with each tick written to its first disk and read back.
pub const DISK_TICKS: &str = "console=ttyS0 quiet no_timer_check rdinit=/bin/sh -- -c \"mount -t devtmpfs d /dev; cd /lib/modules; \
    for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod $m.ko; done; \
    n=0; while :; do n=$((n+1)); echo tick $n | dd of=/dev/vda conv=sync,fsync bs=512 2>/dev/null && dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n1; sleep 0.1; done\"";

/// A new, empty disk in `folder`.
pub fn disk(folder: &Path, format: DiskFormat) -> DiskSpec {
    let image = folder.join(format!("{format:?}"));
    let kind = if format == DiskFormat::Raw { "raw" } else { "qcow2" };
    qemu_img(&["create", "-q", "-f", kind, image.to_str().unwrap(), "16M"]);
    DiskSpec { image, format, readonly: false }
}

pub fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

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
pub struct Bench {
    pub qemu: Qemu,
    pub config: QemuConfig,
    pub settings: Settings,
    pub notices: mpsc::Receiver<Notice>,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub fn new(adjust: impl FnOnce(&mut QemuConfig)) -> Self {
        // Not in /tmp, which may be in memory: RAM files are to be written to a disk.
        let dir = tempfile::Builder::new().prefix("dormouse-platform-").tempdir_in("/var/tmp").unwrap();
        Self::within(dir, adjust)
    }

    pub fn within(dir: tempfile::TempDir, adjust: impl FnOnce(&mut QemuConfig)) -> Self {
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
                page_out: true,
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
    pub fn restarted(&mut self) -> &Qemu {
        let (sender, notices) = mpsc::channel(8);
        self.qemu =
            Qemu::new(self.config.clone(), self.settings.clone(), Net::connect().unwrap(), sender).unwrap();
        self.notices = notices;
        &self.qemu
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.settings.machines_dir.join("guest").join(name)
    }

    pub fn last_tick(&self) -> u64 {
        let text = fs::read(self.file("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let ticks = whole.lines().filter_map(|l| l.trim().strip_prefix("tick ")?.parse().ok());
        ticks.max().unwrap_or(0)
    }

    pub async fn ticks_beyond(&self, tick: u64) -> u64 {
        let start = Instant::now();
        while self.last_tick() <= tick {
            assert!(start.elapsed() < Duration::from_secs(60), "no tick after {tick}: {}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
        self.last_tick()
    }

    pub fn logs(&self) -> String {
        ["qemu.log", "console.log"]
            .map(|f| fs::read_to_string(self.file(f)).unwrap_or_default())
            .join("\n---\n")
    }

    pub async fn booted(&self) -> u64 {
        self.qemu.boot().await.unwrap();
        self.ticks_beyond(2).await
    }

    pub async fn asleep(&self) {
        self.qemu.save().await.unwrap();
        self.qemu.flush().await.unwrap();
        self.qemu.quit().await.unwrap();
    }

    pub async fn seen(&self) -> Observed {
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

pub fn observed(process: Process, saved_state: bool) -> Observed {
    let saved_state = if saved_state { StateOnDisk::Whole } else { StateOnDisk::None };
    Observed { process, saved_state }
}

pub async fn timed<T>(what: &str, work: impl Future<Output = Result<T, Error>>) -> T {
    let start = Instant::now();
    let value = work.await.unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
    println!("{what:>8} {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    value
}

pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
