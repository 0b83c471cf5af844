//! QEMU's plain migration into a file and back, by the least script that does it.
//!
//! The script is given what a careful author would find: the tap stays open across the sleep, so
//! that the first packet waits in its queue; a frame that means nothing goes first, because
//! virtio-net loses the first one while it loads; the state goes through an inherited descriptor.

use super::{MAC, Machine, Rival, trigger::Trigger, wait_ready};
use crate::qmp::Qmp;
use anyhow::{Context, Result, ensure};
use command_fds::{CommandFdExt, FdMapping};
use dormouse_lab::{Lab, guest::has_kvm};
use dormouse_sys::{PacketSocket, VnetHdr, tap};
use serde_json::json;
use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const TAP: &str = "rival0";
const TAP_FD: i32 = 3;
const QMP_FD: i32 = 4;
const STATE_FD: i32 = 5;

/// A guest that a script starts, saves and restores.
pub(crate) struct Qemu {
    machine: Machine,
    tap: OwnedFd,
    running: Option<Running>,
    waking: Option<Trigger<Running>>,
    lab: Lab,
}

struct Running {
    process: Child,
    qmp: Qmp,
}

impl Qemu {
    pub(crate) fn boot(machine: &Machine) -> Result<Self> {
        let lab = Lab::new("qemu")?;
        let tap = lab.switch().run(|| tap::open(TAP))??;
        lab.switch().ip(&format!("link set {TAP} txqueuelen 10000 master br0\nlink set {TAP} up\n"))?;
        fs::create_dir(lab.dir().join("state"))?;
        let kernel = [
            "-kernel".into(),
            machine.image.kernel().display().to_string(),
            "-initrd".into(),
            machine.image.initrd().display().to_string(),
            "-append".into(),
            machine.kernel_options(),
        ];
        let running = lab.switch().run(|| launch(machine, lab.dir(), tap.try_clone()?, None, &kernel))??;
        wait_ready(&lab.dir().join("serial.log"))?;
        Ok(Self { machine: machine.clone(), tap, running: Some(running), waking: None, lab })
    }

    fn state(&self) -> PathBuf {
        self.dir().join("vm")
    }
}

impl Qemu {
    fn save(&mut self) -> Result<()> {
        let file = File::create(self.state())?;
        let Running { mut process, mut qmp } = self.running.take().context("it does not run")?;
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        qmp.command("migrate-set-capabilities", &events)?;
        qmp.command("migrate-set-parameters", &json!({"max-bandwidth": 1_u64 << 40}))?;
        qmp.give("state", &file)?;
        qmp.send("migrate", &json!({"uri": "fd:state"}))?;
        let ended = |name: &str, data: &serde_json::Value| {
            name == "MIGRATION" && matches!(data["status"].as_str(), Some("completed" | "failed"))
        };
        let event = qmp.event(ended)?;
        ensure!(event["data"]["status"] == "completed", "the migration failed: {event}");
        qmp.send("quit", &json!({}))?;
        process.wait()?;
        Ok(())
    }
}

impl Rival for Qemu {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn dir(&self) -> PathBuf {
        self.lab.dir().join("state")
    }

    fn sleep(&mut self) -> Result<()> {
        self.save().with_context(|| {
            let log = fs::read_to_string(self.lab.dir().join("qemu.log")).unwrap_or_default();
            format!("cannot save; QEMU said: {}", log.trim())
        })
    }

    fn arm(&mut self) -> Result<()> {
        self.lab.switch().run(|| send_junk(TAP))??;
        let (machine, dir) = (self.machine.clone(), self.lab.dir().to_owned());
        let (tap, state) = (self.tap.try_clone()?, File::open(self.state())?);
        self.waking = Some(Trigger::arm(self.lab.switch(), move |_| {
            // It runs by itself once loaded, as it ran when it was saved.
            let mut running = launch(&machine, &dir, tap, Some(state), &[])?;
            running.qmp.event(|name, _| name == "RESUME")?;
            Ok(running)
        })?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.running = Some(self.waking.take().context("it was not armed")?.result()?);
        // The guest has moved on from it.
        Ok(fs::remove_file(self.state())?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
    }
}

/// Starts QEMU in the calling thread's namespace, to boot or to load `state`.
fn launch(
    machine: &Machine,
    dir: &Path,
    tap: OwnedFd,
    state: Option<File>,
    more: &[String],
) -> Result<Running> {
    let (qmp, theirs) = Qmp::new()?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(arguments(machine, dir)).args(more);
    let mut fds = vec![
        FdMapping { parent_fd: tap, child_fd: TAP_FD },
        FdMapping { parent_fd: theirs, child_fd: QMP_FD },
    ];
    if let Some(state) = state {
        command.arg("-incoming").arg(format!("fd:{STATE_FD}"));
        fds.push(FdMapping { parent_fd: state.into(), child_fd: STATE_FD });
    }
    command.fd_mappings(fds)?;
    let log = File::options().create(true).append(true).open(dir.join("qemu.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let process = command.spawn().context("cannot start QEMU")?;
    Ok(Running { process, qmp })
}

/// The same devices at boot and at every restore.
fn arguments(machine: &Machine, dir: &Path) -> Vec<String> {
    let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
    let accelerator =
        if has_kvm() { ["-accel", "kvm", "-cpu", "host"].as_slice() } else { &["-accel", "tcg"] };
    let mut words: Vec<String> =
        ["-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-smp", "1"]
            .map(String::from)
            .into();
    words.extend(accelerator.iter().map(ToString::to_string));
    let devices = [
        ("-m", format!("{}M", machine.mib())),
        ("-serial", format!("file:{}", dir.join("serial.log").display())),
        ("-netdev", format!("tap,id=n0,fd={TAP_FD}")),
        ("-device", format!("virtio-net-pci,netdev=n0,mac={mac},romfile=")),
        ("-chardev", format!("socket,id=qmp,fd={QMP_FD}")),
        ("-mon", "chardev=qmp,mode=control".into()),
    ];
    words.extend(devices.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    words
}

/// A frame of an experimental EtherType (RFC 7042) that every guest ignores.
fn send_junk(tap: &str) -> Result<()> {
    let mut frame = MAC.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(60, 0);
    let socket = PacketSocket::open_inject(tap, false, 1 << 16)?;
    Ok(socket.send(&VnetHdr::PLAIN, &frame)?)
}
