//! `virsh managedsave` and `virsh start`, with a libvirtd and a virtlogd of the bench's own.
//!
//! They run in the lab's namespaces with folders of their own over `/etc/libvirt` and its like, so
//! that a libvirt that the machine has is not touched. libvirt is given what it needs to be at its
//! best: a QEMU user that can open `/dev/kvm` and a parent that reaps, without either of which it
//! probes QEMU anew before every start (seconds). libvirt holds no packets, so that the one that
//! woke the guest is handed to it again once `virsh start` is done; without that favour the client
//! would wait for its own retransmission, a second or three.

use super::{MAC, Machine, Rival, has_kvm, trigger::Trigger, wait_gone, wait_ready};
use anyhow::{Context, Result, bail};
use dormouse_lab::{Lab, wait_until};
use dormouse_sys::PacketSocket;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const DOMAIN: &str = "rival";
const TAP: &str = "rival0";
/// Where libvirt wants its folders, and what they are called in the lab.
const FOLDERS: [(&str, &str); 5] = [
    ("/etc/libvirt", "etc"),
    ("/var/lib/libvirt", "lib"),
    ("/run/libvirt", "run"),
    ("/var/log/libvirt", "log"),
    ("/var/cache/libvirt", "cache"),
];

/// A guest that libvirt runs.
pub(crate) struct Libvirt {
    daemon: Child,
    waking: Option<Trigger<()>>,
    lab: Lab,
}

impl Libvirt {
    pub(crate) fn boot(machine: &Machine) -> Result<Self> {
        let lab = Lab::new("libvirt")?;
        configure(lab.dir())?;
        let daemon = start_daemon(&lab)?;
        let rival = Self { daemon, waking: None, lab };
        let dir = rival.lab.dir();
        wait_until("libvirtd to answer", Duration::from_secs(60), || Ok(virsh(dir, &["version"]).is_ok()))
            .with_context(|| fs::read_to_string(dir.join("libvirtd.log")).unwrap_or_default())?;
        let xml = rival.lab.write("domain.xml", &domain(machine, dir))?;
        virsh(dir, &["define", &xml.to_string_lossy()])?;
        virsh(dir, &["start", DOMAIN])?;
        wait_ready(&dir.join("serial.log"))?;
        Ok(rival)
    }
}

impl Rival for Libvirt {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn dir(&self) -> PathBuf {
        self.lab.dir().join("lib")
    }

    fn sleep(&mut self) -> Result<()> {
        virsh(self.lab.dir(), &["managedsave", DOMAIN])?;
        wait_gone(&self.lab)
    }

    fn arm(&mut self) -> Result<()> {
        let dir = self.lab.dir().to_owned();
        self.waking = Some(Trigger::arm(self.lab.switch(), move |(header, frame)| {
            virsh(&dir, &["start", DOMAIN])?;
            let socket = PacketSocket::open_inject(TAP, false, 1 << 16)?;
            Ok(socket.send(&header, &frame)?)
        })?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.waking.take().context("it was not armed")?.result()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = virsh(self.lab.dir(), &["destroy", DOMAIN]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn configure(dir: &Path) -> Result<()> {
    for (_, name) in FOLDERS {
        fs::create_dir(dir.join(name))?;
    }
    fs::write(
        dir.join("etc/libvirtd.conf"),
        "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_group = \"root\"\n",
    )?;
    fs::write(
        dir.join("etc/qemu.conf"),
        "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ndynamic_ownership = 0\n",
    )?;
    Ok(fs::write(dir.join("etc/virtlogd.conf"), "")?)
}

/// `ip netns exec` gives the daemons a mount namespace of their own, too.
fn start_daemon(lab: &Lab) -> Result<Child> {
    let mut script = String::from("set -e\n");
    for (place, name) in FOLDERS {
        script += &format!("mkdir -p {place}; mount --bind {} {place}\n", lab.dir().join(name).display());
    }
    script += "virtlogd -d\nexec libvirtd\n";
    let mut command = lab.switch().command(env::current_exe()?);
    command.args(["reap", "sh", "-c", &script]);
    let log = fs::File::create(lab.dir().join("libvirtd.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot start libvirtd")
}

fn virsh(dir: &Path, words: &[&str]) -> Result<String> {
    let socket = dir.join("run/libvirt-sock");
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let out = Command::new("virsh").args(["--quiet", "--connect", &uri]).args(words).output();
    let out = out.context("cannot run virsh")?;
    if !out.status.success() {
        bail!("virsh {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn domain(machine: &Machine, dir: &Path) -> String {
    let kind = if has_kvm() { "kvm" } else { "qemu" };
    let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
    let (kernel, initrd) = (machine.image.kernel(), machine.image.initrd());
    format!(
        "<domain type='{kind}'><name>{DOMAIN}</name>
        <memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
        <cmdline>{cmdline}</cmdline></os><features><acpi/></features>
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <controller type='usb' model='none'/><memballoon model='none'/>
        <interface type='bridge'><source bridge='{bridge}'/><mac address='{mac}'/>
        <target dev='{TAP}'/><model type='virtio'/></interface>
        <serial type='file'><source path='{serial}'/></serial></devices></domain>",
        memory = machine.mib(),
        kernel = kernel.display(),
        initrd = initrd.display(),
        cmdline = machine.kernel_options(),
        bridge = Lab::BRIDGE,
        serial = dir.join("serial.log").display(),
    )
}
