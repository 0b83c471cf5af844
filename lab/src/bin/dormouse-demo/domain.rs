//! The steps of the demo with a domain of libvirt.

use crate::{
    figures::{answered, figure, mib, span},
    stage::Stage,
};
use anyhow::{Context, Result};
use dormouse_lab::{
    Client, Daemon, Domain, Guest, HostMemory, Lab, Libvirtd, SshSession,
    api::{EventKind, MachineState},
    guest::Image,
    wait_until,
};
use std::{net::SocketAddr, time::Duration};

const NAME: &str = "web";
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
/// Connections to the guest's services wake it; no other frame does.
const WAKE_ON: &str = r#"wake.on=["tcp:7,22,80,7778,7779"]"#;

/// The lab, its libvirt, the domain, and what is remembered from one step to the next.
#[derive(Debug)]
pub(crate) struct DomainStory {
    ssh: SshSession,
    boot_id: String,
    daemon: Daemon,
    client: Client,
    domain: Domain,
    libvirtd: Libvirtd,
    // Last, so that it goes last and takes down what is still there.
    lab: Lab,
}

impl DomainStory {
    /// A domain runs that Dormouse knows nothing of.
    pub(crate) fn begin(stage: &mut Stage) -> Result<Self> {
        stage.step("A domain of libvirt runs, made by others");
        stage.waiting("starting libvirtd");
        let lab = Lab::new("demo")?;
        let image = Image::build()?;
        let libvirtd = Libvirtd::start(&lab)?;
        stage.waiting("booting");
        let domain = Domain::new(Guest::new(NAME, 2).dirty(40)).agent();
        let took = libvirtd.boot(&lab, &image, &domain)?;
        let config = format!("sample_interval = \"500ms\"\n[libvirt]\nuri = {:?}\n", libvirtd.uri());
        let daemon = Daemon::start_with(&lab, &config, &[])?;
        let client = lab.client();
        let ssh = client.ssh(&image, domain.guest().ip())?;
        let boot_id = client.sink(domain.guest().ip())?.boot_id;
        stage.check(true, "all services up", &format!("{}; an ssh session is open", span(took)));
        Ok(Self { ssh, boot_id, daemon, client, domain, libvirtd, lab })
    }

    /// It becomes a machine, and nothing of it changes.
    pub(crate) fn imports(&self, stage: &mut Stage) -> Result<()> {
        stage.step("dormouse import libvirt web --set sleep.idle_after=3s");
        let definition = self.definition()?;
        let words = ["import", "libvirt", NAME, "--set", "sleep.idle_after=3s", "--set", WAKE_ON];
        for line in self.daemon.run(&words)?.lines() {
            stage.note(line);
        }
        self.daemon.wait_state(NAME, MachineState::Active, LONG)?;
        let same = self.definition()? == definition && self.libvirtd.domstate(NAME)? == "running";
        stage.check(same, "imported", "it runs on, and its definition is as it was");
        for line in self.daemon.run(&["doctor", NAME])?.lines() {
            stage.note(line);
        }
        Ok(())
    }

    /// It goes idle by itself and sleeps; its memory goes back to the host.
    pub(crate) fn goes_to_sleep(&self, stage: &mut Stage) -> Result<()> {
        stage.step("Nobody needs it: it goes to sleep by itself");
        stage.waiting("waiting for it to go idle");
        let (events, before) = (self.daemon.events()?, self.host_memory()?);
        let fell_asleep = |event: &dormouse_lab::api::Event| {
            event.kind == EventKind::State && event.to == Some(MachineState::Asleep)
        };
        let asleep = events.wait("the domain to sleep", LONG, fell_asleep)?;
        let gone = wait_until("QEMU to be gone", LONG, || Ok(self.lab.qemu_pids()?.is_empty()))?;
        let after = self.host_memory()?;
        let took = figure(&asleep, "took_ms").unwrap_or_default();
        stage.check(gone < SECOND, "asleep", &format!("{}, by libvirt's managed save", span(took)));
        let host = format!("{} → {}; no QEMU process", mib(before.total()), mib(after.total()));
        stage.check(after.total() < before.total(), "host memory", &host);
        for line in self.libvirtd.virsh(&["list", "--all", "--managed-save"])?.lines() {
            stage.note(&format!("virsh: {}", line.trim()));
        }
        stage.row("to fall asleep, durably", span(took));
        Ok(())
    }

    /// It is answered for, whether or not there is a libvirt.
    pub(crate) fn stays_present(&self, stage: &mut Stage) -> Result<()> {
        stage.step("Asleep, it is still there, also while libvirtd is upgraded");
        let ip = self.domain.guest().ip();
        let _first = self.client.ping(ip, SECOND)?;
        let ping = self.client.ping(ip, SECOND)?;
        stage.check(true, "ping answered", &span(ping));
        self.libvirtd.stop()?;
        let without = self.client.ping(ip, SECOND)?;
        stage.check(true, "without libvirtd", &format!("ping answered in {}", span(without)));
        let back = self.libvirtd.resume()?;
        let why = self.daemon.why(NAME)?;
        let sleeps = why.state == MachineState::Asleep && self.lab.qemu_pids()?.is_empty();
        stage.check(
            sleeps,
            "slept on",
            &format!("libvirtd is back after {}; {}", span(back), answered(&why)),
        );
        stage.row("ping while asleep", span(ping));
        Ok(())
    }

    /// A connection wakes it, and what was open before goes on.
    pub(crate) fn wakes(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("A client connects: it wakes");
        let ip = self.domain.guest().ip();
        let page = self.client.http_get(SocketAddr::new(ip.into(), 80), "/", LONG)?;
        stage.check(page.status == 200, "SYN-ACK", &format!("{} after the SYN", span(page.connected)));
        let wake = self.daemon.why(NAME)?.last_wake.context("nothing is said to have woken it")?;
        stage.check(wake.cause == "packet", "woken by", &wake.frame.unwrap_or_default());
        let (said, took) = self.ssh.timed("echo still here")?;
        let same = self.client.sink(ip)?.boot_id == self.boot_id;
        let session = format!("ssh answered in {}; the same boot", span(took));
        stage.check(said == "still here\n" && same, "what was open", &session);
        stage.row("SYN to SYN-ACK, from a managed save", span(page.connected));

        let slept = self.daemon.sleep_at(NAME, "paused")?;
        let page = self.client.http_get(SocketAddr::new(ip.into(), 80), "/", LONG)?;
        let figures = format!("{} after the SYN, asleep at the depth `paused`", span(page.connected));
        stage.check(slept.state == MachineState::Asleep && page.status == 200, "SYN-ACK", &figures);
        stage.row("SYN to SYN-ACK, from paused", span(page.connected));
        Ok(())
    }

    /// What others do by virsh is followed, and never undone.
    pub(crate) fn leaves_others_be(&self, stage: &mut Stage) -> Result<()> {
        stage.step("Others go on using virsh");
        for (verb, state) in [("suspend", MachineState::Suspended), ("resume", MachineState::Active)] {
            self.libvirtd.virsh(&[verb, NAME])?;
            let took = self.daemon.wait_state(NAME, state, LONG)?;
            let known = format!("{state} after {}", span(took));
            stage.check(took < SECOND, &format!("virsh {verb}"), &known);
        }
        let events = self.daemon.run(&["events", NAME])?;
        let by_others = events.lines().rfind(|line| line.contains("another client"));
        stage.check(by_others.is_some(), "dormouse events", by_others.unwrap_or("say nothing of it").trim());
        Ok(())
    }

    /// What it used, and what was saved.
    pub(crate) fn says_what_it_cost(&self, stage: &mut Stage) -> Result<()> {
        stage.step("dormouse usage");
        let usage = self.daemon.run(&["usage", "--since", "1h"])?;
        for line in usage.lines() {
            stage.note(line);
        }
        stage.check(usage.contains(NAME), "metered", "by the second");
        Ok(())
    }

    /// Dormouse forgets it; libvirt does not.
    pub(crate) fn clean_up(self, stage: &mut Stage) -> Result<()> {
        stage.step("Clean-up");
        stage.waiting("stopping everything, removing the lab");
        let Self { ssh, mut daemon, libvirtd, lab, .. } = self;
        drop(ssh);
        daemon.run(&["rm", NAME])?;
        let left = libvirtd.domstate(NAME)?;
        stage.check(left == "running", "dormouse rm", "the domain runs on, as if nothing had been");
        daemon.stop()?;
        libvirtd.virsh(&["destroy", NAME])?;
        libvirtd.stop()?;
        let (namespace, dir) = (lab.switch().path(), lab.dir().to_owned());
        drop((libvirtd, lab));
        let gone = !namespace.exists() && !dir.exists();
        stage.check(gone, "nothing is left", "guest, daemons, namespaces and files are gone");
        Ok(())
    }

    fn definition(&self) -> Result<String> {
        Ok(self.libvirtd.virsh(&["dumpxml", "--inactive", NAME])?)
    }

    fn host_memory(&self) -> Result<HostMemory> {
        Ok(self.lab.host_memory(&self.daemon.state_dir())?)
    }
}
