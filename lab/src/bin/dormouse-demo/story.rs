//! The steps of the demo.

use crate::{
    figures::{answered, count, figure, mib, signals, span},
    stage::Stage,
};
use anyhow::{Context, Result};
use dormouse_lab::{
    Client, Daemon, Drops, EchoSession, EventLog, Guest, HostMemory, Lab, MemoryCheck, SinkStats, SshSession,
    api::{Event, EventKind, MachineState, Why},
    dropped_between,
    guest::Image,
    wait_for, wait_until,
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

const NAME: &str = "web";
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
/// All but datagrams: those are held until something else wakes the guest.
const WAKE_ON: &str = "tcp:7,22,80,7778,7779";
/// A monitor asks here each minute whether the machine is well: no reason to wake it.
const MONITORED: u16 = 5666;
/// The guest has the same pages here as at port 80; while it sleeps, browsers get the waking page.
const PAGE: u16 = 8080;
/// How long the idle ssh session is watched, and how its client's kernel probes it: after two idle seconds,
/// and again each second; three probes without an answer would end it.
const IDLE: Duration = Duration::from_secs(12);
const KEEPALIVE: (u32, u32, u32) = (2, 1, 3);
/// Room for two seconds of the fastest stream, and samples that show what happens within seconds.
const CONFIG: &str = "sample_interval = \"500ms\"\n[limits]\nheld_frames = 400000\nheld_bytes = \"256MiB\"";

/// The lab, the guest, and what is remembered from one step to the next.
#[derive(Debug)]
pub(crate) struct Story {
    ssh: SshSession,
    echo: EchoSession,
    events: EventLog,
    memory: MemoryCheck,
    before: SinkStats,
    daemon: Daemon,
    client: Client,
    guest: Guest,
    rate: u32,
    // Last, so that it goes last and takes down what is still there.
    lab: Lab,
}

impl Story {
    /// The guest boots, and sessions are opened that are to outlive its sleep.
    pub(crate) fn begin(stage: &mut Stage, rate: u32) -> Result<Self> {
        stage.step("The guest boots");
        stage.waiting("booting");
        let lab = Lab::new("demo")?;
        let image = Image::build()?;
        let daemon = Daemon::start_with(&lab, CONFIG, &[])?;
        let events = daemon.events()?;
        let guest = Guest::new(NAME, 2).dirty(40).set("sleep.idle_after", "3s");
        let guest = guest.set("wake.on", vec![WAKE_ON.to_owned()]);
        let guest = guest.set("wake.ignore", vec![format!("udp:{MONITORED}")]).set("service", vec![page()]);
        let took = daemon.boot(&lab, &image, &guest)?;
        stage.check(true, "all services up", &span(took));
        stage.row("boot to all services", span(took));

        stage.waiting("opening sessions");
        let client = lab.client();
        // Heard once, an address is known: nothing in the machine file says what they are.
        let (ping, ping6) = (client.ping(guest.ip(), SECOND)?, client.ping(guest.ip6(), SECOND)?);
        stage.check(true, "ping answered", &format!("{}, IPv6 {}", span(ping), span(ping6)));
        let memory = client.verify_memory(guest.ip())?;
        let before = client.sink(guest.ip())?;
        let (idle, interval, count) = KEEPALIVE;
        client.keepalive(idle, interval, count)?;
        let ssh = client.ssh(&image, guest.ip())?;
        let echo = client.echo(guest.ip())?;
        let marked = format!("{} of its memory hold a known pattern", mib(memory.pages * 4096));
        stage.check(memory.bad == 0, "two sessions open", &format!("ssh and TCP echo; {marked}"));
        Ok(Self { ssh, echo, events, memory, before, daemon, client, guest, rate, lab })
    }

    /// It goes idle by itself and sleeps; its memory goes back to the host.
    pub(crate) fn goes_to_sleep(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("Nobody needs it: it goes to sleep by itself (idle_after = 3s)");
        stage.waiting("waiting for it to go idle");
        let before = self.host_memory()?;
        let awake = self.last_why_before_sleep()?;
        let asleep = self.asleep_event()?;
        let gone = wait_until("QEMU to be gone", LONG, || Ok(self.lab.qemu_pids()?.is_empty()))?;
        let after = self.host_memory()?;

        let idle = awake.signals.iter().all(|signal| !signal.busy);
        stage.check(idle, "idle", &signals(&awake));
        let took =
            figure(&asleep, "took_ms").context("the event of the sleep does not say how long it took")?;
        let parts = [("save_ms", "saving"), ("flush_ms", "flushing to disk"), ("quit_ms", "then freeing")];
        let parts = parts.map(|(name, doing)| (doing, figure(&asleep, name).unwrap_or_default()));
        let parts = parts.map(|(doing, took)| format!("{doing} {}", span(took))).join(", ");
        stage.check(gone < SECOND, "asleep", &format!("{} ({parts})", span(took)));
        let given = before.total().saturating_sub(after.total());
        let host = format!("{} → {}; no QEMU process", mib(before.total()), mib(after.total()));
        stage.check(after.total() < before.total() / 10, "host memory", &host);
        stage.row("to fall asleep, durably", span(took));
        stage.row("host memory given back", format!("{} of {}", mib(given), mib(before.total())));
        Ok(())
    }

    /// ARP and echo requests are answered while no guest runs.
    pub(crate) fn stays_present(&self, stage: &mut Stage) -> Result<()> {
        stage.step("Asleep, it is still there");
        let (ip, ip6) = (self.guest.ip(), self.guest.ip6());
        let before: u64 = self.daemon.why(NAME)?.answered.values().sum();
        self.client.forget_neighbours()?;
        let arp = self.client.arping(ip, SECOND)?;
        let right = arp.mac == self.guest.mac() && arp.requests == 1;
        stage.check(right, "ARP answered", &format!("{} by {}", span(arp.elapsed), arp.mac));
        // The first one includes the client's own ARP or neighbour solicitation.
        let (first, first6) = (self.client.ping(ip, SECOND)?, self.client.ping(ip6, SECOND)?);
        let (ping, ping6) = (self.client.ping(ip, SECOND)?, self.client.ping(ip6, SECOND)?);
        let figures = format!("{}, IPv6 {}", span(ping), span(ping6));
        let figures = format!("{figures} (the first {} and {}, addresses asked)", span(first), span(first6));
        stage.check(true, "ping answered", &figures);
        let why = self.daemon.why(NAME)?;
        let by_surrogate = why.answered.values().sum::<u64>() >= before + 5;
        let no_guest = self.lab.qemu_pids()?.is_empty() && why.state == MachineState::Asleep;
        stage.check(by_surrogate && no_guest, "by the surrogate", &answered(&why));
        stage.row("ping while asleep", format!("{}, IPv6 {}", span(ping), span(ping6)));
        Ok(())
    }

    /// An idle connection is kept up, and noise does not wake it.
    pub(crate) fn stays_connected(&self, stage: &mut Stage) -> Result<()> {
        let (idle, _, count) = KEEPALIVE;
        stage.step(&format!("The idle ssh session is probed each {idle} s, and a monitor looks by"));
        stage.waiting("watching it sleep");
        let (mark, before) = (self.last_event(), probes(&self.daemon.why(NAME)?));
        let monitor = self.client.namespace().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        for _ in 0..3 {
            monitor.send_to(b"are you well?", (self.guest.ip(), MONITORED))?;
            thread::sleep(IDLE / 3);
        }
        let why = self.daemon.why(NAME)?;
        let probes = probes(&why) - before;
        let kept =
            format!("{probes} probes answered in {}; {count} without an answer would end it", span(IDLE));
        stage.check(probes >= IDLE.as_secs() / 3, "keepalives", &kept);
        let ignored: Vec<_> =
            why.ignored.iter().map(|i| format!("{} {}: {}", i.frames, i.reason, i.last)).collect();
        stage.check(why.ignored.iter().any(|i| i.frames == 3), "ignored", &ignored.join(", "));
        let woke =
            self.events.all().iter().any(|event| event.seq > mark && event.to == Some(MachineState::Waking));
        let sleeps = why.state == MachineState::Asleep && !woke && self.lab.qemu_pids()?.is_empty();
        stage.check(sleeps, "slept on", "nothing of it woke the guest; `dormouse why web` says:");
        for line in self.daemon.run(&["why", NAME])?.lines() {
            stage.note(line);
        }
        stage.row(
            "ssh session, guest asleep",
            format!("{probes} keepalive probes answered in {}", span(IDLE)),
        );
        Ok(())
    }

    /// A connection wakes it.
    pub(crate) fn wakes(&self, stage: &mut Stage) -> Result<()> {
        stage.step("A client connects: it wakes");
        let page = self.client.http_get(SocketAddr::new(self.guest.ip().into(), 80), "/", LONG)?;
        let again = format!("{} SYN sent again", page.syn_retransmits);
        let connected = format!("{} after the SYN; {again}", span(page.connected));
        stage.check(page.syn_retransmits == 0, "SYN-ACK", &connected);
        stage.check(
            page.status == 200,
            "first HTTP byte",
            &format!("{} after the SYN", span(page.first_byte)),
        );
        let wake = self.daemon.why(NAME)?.last_wake.context("nothing is said to have woken it")?;
        let ran = wake.took_ms.map(|ms| format!(", ran after {ms} ms")).unwrap_or_default();
        let frame = wake.frame.unwrap_or_default();
        stage.check(wake.cause == "packet", "woken by", &format!("{frame}{ran}"));
        stage.row("SYN to SYN-ACK, asleep", span(page.connected));
        stage.row("SYN to first HTTP byte", span(page.first_byte));
        Ok(())
    }

    /// What was open before the sleep goes on after it.
    pub(crate) fn goes_on(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("What was open before goes on");
        let (said, ssh) = self.ssh.timed("echo still here")?;
        let echo = self.echo.say("still here")?;
        let both = format!("ssh answered in {}, TCP echo in {}", span(ssh), span(echo));
        stage.check(said == "still here\n", "sessions", &both);
        let memory = self.client.verify_memory(self.guest.ip())?;
        let now = self.client.sink(self.guest.ip())?;
        let same = memory == self.memory && now.boot_id == self.before.boot_id;
        let pages = format!("{} pages checked, {} changed; the same boot", count(memory.pages), memory.bad);
        stage.check(same, "memory", &pages);
        Ok(())
    }

    /// A browser is told to wait, and gets the guest's own page next.
    pub(crate) fn shows_the_waking_page(&self, stage: &mut Stage) -> Result<()> {
        stage.step(&format!("A browser asks at port {PAGE}, where the machine's file names a waking page"));
        let slept = self.daemon.sleep_after_traffic(NAME)?.state;
        let gone = wait_until("QEMU to be gone", LONG, || Ok(self.lab.qemu_pids()?.is_empty()))?;
        let mark = self.last_event();
        let (status, page) = self.curl()?;
        let title = page.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
        let title = title.map_or("no page", |(title, _)| title);
        let asleep = slept == MachineState::Asleep && gone < SECOND;
        stage.check(
            asleep && status == 503,
            "while it sleeps",
            &format!("{status}: \"{title}\", reloads by itself"),
        );
        let is_it = |event: &Event| event.seq > mark && event.to == Some(MachineState::Active);
        let awake = self.events.wait("the guest to wake", LONG, is_it)?;
        let took = figure(&awake, "took_ms").unwrap_or_default();
        let (status, page) = self.curl()?;
        let own = page.contains("Awake.");
        stage.check(
            status == 200 && own,
            "the reload",
            &format!("{status}: the guest's own page; it woke in {}", span(took)),
        );
        Ok(())
    }

    /// What curl gets that accepts HTML, as browsers do: the status and the page.
    fn curl(&self) -> Result<(u16, String)> {
        let mut curl = self.client.namespace().command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "30", "--header", "Accept: text/html"]);
        curl.args(["--write-out", "\n%{http_code}"]).arg(format!("http://{}:{PAGE}/", self.guest.ip()));
        let out = curl.output().context("curl cannot be run")?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr);
        let (page, status) = said.rsplit_once('\n').with_context(|| format!("curl: {errors}"))?;
        Ok((status.parse()?, page.to_owned()))
    }

    fn last_event(&self) -> u64 {
        self.events.all().last().map_or(0, |event| event.seq)
    }

    /// A numbered stream is sent all the while the guest goes to sleep, sleeps and wakes.
    pub(crate) fn stream(&self, stage: &mut Stage) -> Result<()> {
        let rate = count(self.rate.into());
        stage.step(&format!("{rate} numbered datagrams a second, through another sleep and wake"));
        stage.waiting("sending");
        let ip = self.guest.ip();
        self.client.reset_sink(ip)?;
        let before = (self.client.sink(ip)?, self.lab.switch().drops()?);
        let stream = self.client.udp_stream(ip, self.rate, 100)?;
        thread::sleep(SECOND / 2);
        let slept = self.daemon.sleep_after_traffic(NAME)?;
        let gone = wait_until("QEMU to be gone", LONG, || Ok(self.lab.qemu_pids()?.is_empty()))?;
        thread::sleep(SECOND / 4);
        let held = self.daemon.why(NAME)?.held.frames;
        let page = self.client.http_get(SocketAddr::new(ip.into(), 80), "/", LONG)?;
        thread::sleep(SECOND / 2);
        let sent = stream.stop();

        let stats = settled_sink(&self.client, ip, sent.datagrams)?;
        let slept_by = format!("command, in {} ms; {} held when a SYN woke it", slept.took_ms, count(held));
        let was_asleep = slept.state == MachineState::Asleep && gone < SECOND && held > 0;
        stage.check(was_asleep, "asleep meanwhile", &slept_by);
        let woke = format!("{} after the SYN", span(page.connected));
        stage.check(page.syn_retransmits == 0, "SYN-ACK", &woke);
        let SinkStats { received, duplicates, reordered, .. } = stats;
        let lost = sent.datagrams.saturating_sub(received);
        let verdict = format!("{lost} lost, {duplicates} twice, {reordered} out of order");
        let figures = format!("{} sent, {} received: {verdict}", count(sent.datagrams), count(received));
        stage.check(stats.is_whole(sent.datagrams), "the stream", &figures);
        if lost > 0 {
            stage.note(&self.where_lost(&before.0, &stats, &before.1)?);
        }
        stage.row(&format!("{} datagrams at {rate}/s", count(sent.datagrams)), verdict);
        Ok(())
    }

    /// Who says to have dropped what did not arrive.
    fn where_lost(&self, before: &SinkStats, after: &SinkStats, drops: &Drops) -> Result<String> {
        let by_guest = after.rcvbuf_errors - before.rcvbuf_errors;
        let by_links = dropped_between(drops, &self.lab.switch().drops()?);
        let by_dormouse = self.daemon.why(NAME)?.dropped;
        Ok(format!("dropped by Dormouse: {by_dormouse:?}; links: {by_links}; the guest's socket: {by_guest}"))
    }

    /// Everything goes away.
    pub(crate) fn clean_up(self, stage: &mut Stage) -> Result<()> {
        stage.step("Clean-up");
        stage.waiting("stopping the daemon, removing the lab");
        let Self { ssh, echo, events, mut daemon, lab, .. } = self;
        drop((ssh, echo, events));
        daemon.run(&["stop", "--force", NAME])?;
        daemon.run(&["rm", NAME])?;
        daemon.stop()?;
        let orphans = lab.qemu_pids()?.len();
        let (namespace, dir) = (lab.switch().path(), lab.dir().to_owned());
        drop(lab);
        let gone = orphans == 0 && !namespace.exists() && !dir.exists();
        stage.check(gone, "nothing is left", "guest, daemon, namespaces and files are gone");
        Ok(())
    }

    /// The lab stays, for the audience to play with.
    pub(crate) fn keep(self, stage: &mut Stage) -> Result<()> {
        let Self { ssh, echo, events, daemon, guest, mut lab, .. } = self;
        drop((ssh, echo, events));
        lab.keep()?;
        let (switch, client) = (lab.switch().name(), lab.client_namespace().name());
        let (programs, socket) = (daemon.programs().display(), daemon.socket());
        stage.step("The lab stays up");
        stage.note(&format!("alias dormouse='{programs}/dormouse --socket {}'", socket.display()));
        stage.note("dormouse ls; dormouse why web; dormouse events --follow; dormouse sleep web");
        stage.note(&format!("ip netns exec {client} ping {}", guest.ip()));
        stage.note(&format!("ip netns exec {client} curl http://{}/cgi-bin/uptime", guest.ip()));
        stage.note(&format!("ip netns exec {switch} bridge fdb show br br0   # who stands for the guest"));
        stage.note(&format!("{programs}/dormouse-lab sweep --kept   # removes all of it"));
        daemon.detach();
        Ok(())
    }

    fn host_memory(&self) -> Result<HostMemory> {
        Ok(self.lab.host_memory(&self.daemon.state_dir())?)
    }

    /// Asks "why are you awake?" until it is not, and returns the last answer.
    fn last_why_before_sleep(&self) -> Result<Why> {
        let mut last = self.daemon.why(NAME)?;
        let waited = wait_for("the guest to go to sleep", LONG, || {
            let why = self.daemon.why(NAME)?;
            if why.state == MachineState::Active {
                last = why;
                // Each question is a process: ask rarely, not to disturb what is measured.
                thread::sleep(SECOND / 5);
                return Ok(None);
            }
            Ok(Some(()))
        });
        waited?;
        Ok(last)
    }

    /// The event of the only sleep so far; it comes when all is done.
    fn asleep_event(&self) -> Result<Event> {
        let is_it = |event: &Event| event.kind == EventKind::State && event.to == Some(MachineState::Asleep);
        Ok(self.events.wait("the event of the sleep", LONG, is_it)?)
    }
}

/// The service at [`PAGE`].
fn page() -> toml::Value {
    let entries = [("port", i64::from(PAGE).into()), ("answer", "waking-page".into())];
    toml::Table::from_iter(entries.map(|(key, value): (&str, toml::Value)| (key.to_owned(), value))).into()
}

/// The keepalive probes that were answered for it.
fn probes(why: &Why) -> u64 {
    why.answered.get("tcp-keepalive").copied().unwrap_or(0)
}

/// The sink's account once it has all, or gets no more.
fn settled_sink(client: &Client, ip: Ipv4Addr, sent: u64) -> Result<SinkStats> {
    let mut last = client.sink(ip)?;
    while last.received < sent {
        thread::sleep(SECOND / 2);
        let now = client.sink(ip)?;
        if now.received == last.received {
            break;
        }
        last = now;
    }
    Ok(last)
}
