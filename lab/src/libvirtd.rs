//! libvirt in a lab: a libvirtd and a virtlogd of its own.
//!
//! They run in the switch's namespace, with folders of the lab's over `/etc/libvirt` and its like, so that
//! a libvirt that the machine has is not touched. libvirt is given what it needs to be at its best: a user
//! for QEMU that can open `/dev/kvm` and a parent that reaps, without either of which it probes QEMU anew
//! before every start (seconds).
//!
//! By hand, with a domain `web` that runs and, where `dormoused` is built, a daemon:
//!
//! ```text
//! cargo build --bins && target/debug/dormouse-lab libvirt     # says how to go on
//! ```

use crate::{
    Domain, Error, Guest, Lab, Namespace, Output, Result, command, guest::Image, programs, wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Where libvirt wants its folders, and what they are called in the lab.
const FOLDERS: [(&str, &str); 5] = [
    ("/etc/libvirt", "etc"),
    ("/var/lib/libvirt", "lib"),
    ("/run/libvirt", "run"),
    ("/var/log/libvirt", "log"),
    ("/var/cache/libvirt", "cache"),
];
const LOG: &str = "libvirtd.log";
/// The first start probes QEMU, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// A libvirtd on a lab's switch. Dropping it kills it, as a crash would: its guests live on until the lab
/// is dropped.
#[derive(Debug)]
pub struct Libvirtd {
    dir: PathBuf,
    /// A line of it starts libvirtd. Kept open, so that no line is lost.
    orders: File,
    keeper: Child,
    detached: bool,
}

impl Libvirtd {
    /// The bridge of libvirt's network `default`.
    pub const NAT_BRIDGE: &str = "virbr0";
    /// The URI of one that listens, in the switch's namespace: to its clients it is that of another host.
    pub const TCP_URI: &str = "qemu+tcp://192.0.2.1/system";

    /// Starts virtlogd and libvirtd, and waits until libvirtd answers.
    ///
    /// # Errors
    ///
    /// If they are not installed, or do not answer; the error has the end of their log.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, &[])
    }

    /// As [`Self::start`], with environment variables for libvirtd and all that it starts.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(lab: &Lab, environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(lab, "libvirt", environment)
    }

    /// One more on the same switch, as that of another host: of another name, and with domains of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_another(lab: &Lab, host: &str) -> Result<Self> {
        Self::start_in(lab, host, &[])
    }

    /// As [`Self::start`]; it listens at [`Self::TCP_URI`] as well, without authentication.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_listening(lab: &Lab) -> Result<Self> {
        // It resolves no address of IPv4 where there is none but the loopback's own.
        lab.switch().ip("addr add 192.0.2.1/32 dev lo\n")?;
        Self::start_with(lab, &[("LIBVIRTD_ARGS", "--listen")])
    }

    fn start_in(lab: &Lab, host: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let dir = lab.dir().join(host);
        configure(&dir)?;
        let path = dir.join("run/orders");
        command::stdout(Command::new("mkfifo").arg(&path))?;
        let orders = OpenOptions::new().read(true).write(true).open(&path);
        let orders = orders.map_err(Error::file("open", path))?;
        let keeper = keep(lab.switch(), host, &dir, environment)?;
        let libvirtd = Self { dir, orders, keeper, detached: false };
        libvirtd.resume()?;
        Ok(libvirtd)
    }

    /// The URI by which it is reached, from anywhere on this machine.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir.join("run/libvirt-sock").display())
    }

    /// What libvirt has for `/var/lib/libvirt`: saved states are in it.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("lib")
    }

    /// The file with all that libvirtd printed, over all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// A `virsh` command that talks to it, for the caller to run.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", &self.uri()]).args(words);
        command
    }

    /// Runs `virsh` to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn ask(&self, words: &[&str]) -> Result<Output> {
        command::output(&mut self.command(words))
    }

    /// Runs `virsh`, which must succeed, and returns what it printed.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        command::stdout(&mut self.command(words))
    }

    /// Defines a domain, or defines it anew.
    ///
    /// # Errors
    ///
    /// If libvirt refuses it.
    pub fn define(&self, lab: &Lab, image: &Image, domain: &Domain) -> Result<()> {
        let file = domain.write(lab, image)?;
        self.virsh(&["define", &file.to_string_lossy()]).map(drop)
    }

    /// Defines a domain, starts it and waits until all its services run; returns how long it booted.
    ///
    /// # Errors
    ///
    /// If libvirt refuses, or the guest does not boot.
    pub fn boot(&self, lab: &Lab, image: &Image, domain: &Domain) -> Result<Duration> {
        self.define(lab, image, domain)?;
        self.virsh(&["start", domain.name()])?;
        domain.wait_ready(lab, 1, BOOT_TIMEOUT)
    }

    /// What `virsh domstate` says of a domain, as `running` or `shut off`.
    ///
    /// # Errors
    ///
    /// If there is no such domain.
    pub fn domstate(&self, name: &str) -> Result<String> {
        self.virsh(&["domstate", name]).map(|state| state.trim().to_owned())
    }

    /// Asks a domain's guest agent for what a command without arguments returns.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn agent(&self, name: &str, command: &str) -> Result<Value> {
        let text = self.virsh(&["qemu-agent-command", name, &json!({"execute": command}).to_string()])?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        let value = answer.and_then(|mut answer| answer.get_mut("return").map(Value::take));
        value.ok_or(Error::Answer { from: "the guest agent".into(), answer: text })
    }

    /// Starts the network that libvirt comes with: `default`, on the bridge [`Self::NAT_BRIDGE`], with
    /// dnsmasq, which gives the guests their addresses. The client is moved to that bridge.
    ///
    /// # Errors
    ///
    /// If libvirt refuses it.
    pub fn nat(&self, lab: &Lab, guests: &[&Guest]) -> Result<()> {
        let hosts = guests.iter().map(|g| format!("<host mac='{}' ip='{}'/>", g.mac(), g.ip()));
        let xml = format!(
            "<network><name>default</name><forward mode='nat'/><bridge name='{}' stp='off' delay='0'/>
             <ip address='10.9.0.254' netmask='255.255.255.0'>
             <dhcp><range start='10.9.0.100' end='10.9.0.200'/>{}</dhcp></ip></network>",
            Self::NAT_BRIDGE,
            hosts.collect::<String>(),
        );
        let file = lab.write("default.network.xml", &xml)?;
        self.virsh(&["net-define", &file.to_string_lossy()])?;
        self.virsh(&["net-start", "default"])?;
        let plug = format!("link set {} master {}\n", Lab::CLIENT_PORT, Self::NAT_BRIDGE);
        lab.switch().ip(&plug)
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.dir.join("run/libvirtd.pid")).ok()?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "libvirtd").then_some(pid)
    }

    /// Starts libvirtd after it has ended, and waits until it answers; returns how long that took.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn resume(&self) -> Result<Duration> {
        let ordered = (&self.orders).write_all(b"start\n");
        ordered.map_err(Error::file("write", self.dir.join("run/orders")))?;
        let waited =
            wait_until("libvirtd to answer", TIMEOUT, || Ok(self.ask(&["version"])?.code == Some(0)));
        waited.map_err(|e| match e {
            Error::Timeout { what, waited, .. } => {
                let detail = fs::read_to_string(self.log_path()).unwrap_or_default();
                Error::Timeout { what, waited, detail: format!("; its log:\n{detail}") }
            }
            other => other,
        })
    }

    /// Restarts it so that it runs QEMU as another user, to whom it gives what a domain's devices name. That
    /// user can open `/dev/kvm`.
    ///
    /// # Errors
    ///
    /// As [`Self::restart`], or if it does not run.
    pub fn run_qemu_as(&self, user: &str, group: &str) -> Result<()> {
        write(&self.dir, "qemu.conf", &qemu_conf(user, group, true))?;
        let pid = self.pid().ok_or_else(|| Error::Setup("libvirtd does not run".into()))?;
        let open = "test ! -c /dev/kvm || {
            mknod -m 666 /run/libvirt/kvm c 10 232 && mount --bind /run/libvirt/kvm /dev/kvm; }";
        let mut nsenter = Command::new("nsenter");
        command::stdout(nsenter.args(["--mount", "--target", &pid.to_string(), "sh", "-c", open]))?;
        self.restart().map(drop)
    }

    /// Asks libvirtd to end, and waits until it has. Its guests run on.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Kills libvirtd as a crash would. Its guests run on.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn kill9(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Stops and starts it, as an upgrade does; returns how long it took to answer again.
    ///
    /// # Errors
    ///
    /// If it does not end, or does not answer.
    pub fn restart(&self) -> Result<Duration> {
        self.stop()?;
        self.resume()
    }

    /// As [`Self::restart`], after which it starts its domains with autostart, as it does once after the
    /// host has booted.
    ///
    /// # Errors
    ///
    /// As [`Self::restart`].
    pub fn restart_as_at_boot(&self) -> Result<Duration> {
        self.stop()?;
        let done = self.dir.join("run/qemu/autostarted");
        if done.exists() {
            fs::remove_file(&done).map_err(Error::file("remove", &done))?;
        }
        self.resume()
    }

    /// Stops its process so that it answers nobody, while its connections stay open.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Self::freeze`].
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Lets it run on after this value is gone, for a lab that is kept.
    pub fn detach(mut self) {
        self.detached = true;
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().ok_or_else(|| Error::Setup("libvirtd does not run".into()))?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| Error::Setup(format!("libvirtd: {signal}: {errno}")))
    }

    fn end(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        wait_until("libvirtd to end", TIMEOUT, || Ok(self.pid().is_none())).map(drop)
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        // Who starts libvirtd goes before it. What else they have left goes with the lab.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = self.signal(Signal::SIGKILL);
    }
}

/// Starts who starts libvirtd when told, again and again, in one mount namespace with the lab's folders and
/// below one parent that reaps. `ip netns exec` makes that mount namespace.
fn keep(namespace: &Namespace, host: &str, dir: &Path, environment: &[(&str, &str)]) -> Result<Child> {
    // libvirt migrates nothing to a host of the same name.
    let mut script = format!("set -e\nhostname {host}\n");
    for (place, name) in FOLDERS {
        script += &format!("mkdir -p {place}; mount --bind {} {place}\n", dir.join(name).display());
    }
    // Pid files are one for the whole machine otherwise. Each libvirtd is a child of the one that reaps.
    script += "virtlogd -d -p /run/libvirt/virtlogd.pid\n\
        exec 3<>/run/libvirt/orders\n\
        while read -r _ <&3; do (libvirtd $LIBVIRTD_ARGS -p /run/libvirt/libvirtd.pid 3<&- &); done\n";
    let mut command = namespace.command(programs::find("dormouse-lab")?.join("dormouse-lab"));
    command.args(["reap", "unshare", "--uts", "sh", "-c", &script]).envs(environment.iter().copied());
    let path = dir.join(LOG);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(Error::file("open", &path))?;
    let errors = log.try_clone().map_err(Error::file("open", &path))?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    command.spawn().map_err(|source| command::cannot_run(&command, source))
}

fn configure(dir: &Path) -> Result<()> {
    for (_, name) in FOLDERS {
        let folder = dir.join(name);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    }
    // By this, hosts between which domains migrate are told apart.
    let id = Path::new("/proc/sys/kernel/random/uuid");
    let id = fs::read_to_string(id).map_err(Error::file("read", id))?;
    let libvirtd = format!(
        "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_group = \"root\"\nhost_uuid = \"{}\"\n\
         listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"192.0.2.1\"\nauth_tcp = \"none\"\n",
        id.trim()
    );
    let files = [
        ("libvirtd.conf", &*libvirtd),
        ("qemu.conf", &*qemu_conf("root", "root", false)),
        ("virtlogd.conf", ""),
    ];
    files.into_iter().try_for_each(|(name, text)| write(dir, name, text))
}

fn qemu_conf(user: &str, group: &str, owns_files: bool) -> String {
    // Groups of processes have names that two labs would share. Files that a lab shares go back to root.
    format!(
        "user = \"{user}\"\ngroup = \"{group}\"\nsecurity_driver = \"none\"\ndynamic_ownership = {}\n\
         remember_owner = 0\ncgroup_controllers = []\n",
        u8::from(owns_files)
    )
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join("etc").join(name);
    fs::write(&path, text).map_err(Error::file("write", &path))
}
