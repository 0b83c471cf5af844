//! What other code asks the thread of a bridge to do, between two batches of frames.

use std::time::{Duration, Instant};

use dormouse_net::Vlans;
use dormouse_sys::{VnetHdr, packet::Error as SocketError};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::Persona;
use tokio::sync::oneshot;

use super::{Capture, Worker, listen};
use crate::{
    HandoverKind, Mode, Noted, Status,
    clock::{clock, shown},
    handover::Progress,
    judge::WireJudge,
    packet::Packet,
    presence::{Effect, Judge, Presence},
    release::{PortReplay, Release, Target},
    table::Entry,
    watch::Watch,
};

/// The jobs that the asynchronous side asks for.
impl Worker {
    /// Holds every frame for a port whose guest still runs and reads `tap`.
    pub(crate) fn capture(&mut self, capture: Capture, tap: &str) -> Result<(), SocketError> {
        let sniff = self.open_sniff(tap)?;
        // What waits now was delivered to the guest as well.
        self.catch_up();
        let (mac, now) = (capture.who.mac, clock());
        let judge = self.enter(capture, Mode::Holding, now);
        self.table.sniffing.insert(mac);
        let Some(entry) = self.table.get_mut(mac) else { return Ok(()) };
        let effect = entry.presence.capture(judge, now);
        entry.presence.queue().open_boundary();
        let old = entry.sniff.replace(sniff);
        self.reaper.close(old);
        self.table.reindex(mac);
        self.carry_out(mac, effect, now);
        Ok(())
    }

    /// Answers for a port whose guest stands still; `older` is what it left unread.
    pub(crate) fn stand_in(&mut self, capture: Capture, older: Vec<Packet>) {
        self.catch_up();
        self.read_sniffs();
        let (mac, now) = (capture.who.mac, clock());
        let judge = self.enter(capture, Mode::Standing, now);
        self.unwatch(mac);
        self.close_boundary(mac);
        let Some((entry, scanners)) = self.table.with_scanners(mac) else { return };
        self.reaper.close(entry.injector.take());
        let effect = entry.presence.stand_in(judge, older, now, Some(scanners));
        self.table.reindex(mac);
        self.carry_out(mac, effect, now);
        self.table.tell_persona(mac);
    }

    /// Does it answer for this port of the machine already?
    pub(crate) fn stands_in(&self, name: &MachineName, mac: MacAddr) -> bool {
        self.table
            .get(mac)
            .is_some_and(|entry| entry.name == *name && entry.presence.mode() == Mode::Standing)
    }

    /// Makes ready for a guest that will read `tap` soon, and puts `first` into it; still answers.
    pub(crate) fn prepare(&mut self, mac: MacAddr, tap: &str, first: &[u8]) -> Result<(), SocketError> {
        // Once more: what it heard so far would be forgotten, and come twice.
        self.read_sniffs();
        let Some(entry) = self.table.get(mac) else { return Ok(()) };
        let listening = entry.sniff.is_some();
        let mut sniff = if listening { None } else { Some(self.open_sniff(tap)?) };
        let injector = self.open_injector(tap, &mut sniff)?;
        if let Err(error) = injector.send(&VnetHdr::PLAIN, first) {
            tracing::debug!(tap, %error, "the first frame was not injected");
        }
        let Some(entry) = self.table.get_mut(mac) else { return Ok(()) };
        entry.presence.prepare();
        entry.presence.queue().open_boundary();
        entry.sniff = sniff.or_else(|| entry.sniff.take());
        let old = entry.injector.replace(injector);
        self.table.sniffing.insert(mac);
        self.reaper.close(old);
        Ok(())
    }

    /// Starts to give a port back to its guest, which runs. `None`: it was not captured.
    pub(crate) fn release(
        &mut self,
        mac: MacAddr,
        target: Target,
        patience: Duration,
    ) -> Result<Option<oneshot::Receiver<HandoverKind>>, SocketError> {
        let (listening, ready) = match self.table.get(mac) {
            None => return Ok(None),
            Some(entry) => (entry.sniff.is_some(), entry.injector.is_some()),
        };
        let mut sniff = if listening { None } else { Some(self.open_sniff(&target.tap)?) };
        let injector = if ready { None } else { Some(self.open_injector(&target.tap, &mut sniff)?) };
        let injector = injector.or_else(|| self.table.get_mut(mac)?.injector.take());
        let Some(injector) = injector else { return Ok(None) };
        let (caught_up, told) = oneshot::channel();
        let release = Release::new(target, injector, Instant::now() + patience, caught_up);
        let now = clock();
        self.table.admit(mac);
        if let Some(entry) = self.table.get_mut(mac) {
            let effect = entry.presence.release(now);
            entry.sniff = sniff.or_else(|| entry.sniff.take());
            let old = entry.release.replace(Box::new(release));
            self.reaper.close(old.into_iter().flat_map(|release| release.into_sockets()));
            self.table.sniffing.insert(mac);
            self.table.releasing.insert(mac);
            self.carry_out(mac, effect, now);
        }
        Ok(Some(told))
    }

    /// Frames that left the bridge for the port and have not come yet, where they are counted.
    pub(crate) fn under_way(&mut self, mac: MacAddr) -> Option<u64> {
        self.catch_up();
        let counted = self.table.handover.counted(mac)?;
        self.table.get(mac).map(|entry| entry.progress.behind(counted))
    }

    /// The bridge sends nothing for the port here any more: gives the rest and forgets it.
    pub(crate) fn finish(&mut self, mac: MacAddr) -> oneshot::Receiver<PortReplay> {
        self.catch_up();
        self.read_sniffs();
        self.settle_losses(mac);
        let (finished, told) = oneshot::channel();
        self.close_boundary(mac);
        if let Some(release) = self.table.get_mut(mac).and_then(|entry| entry.release.as_mut()) {
            release.finish(finished);
        }
        told
    }

    /// Forgets a port; what it held is dropped. Says how many frames.
    pub(crate) fn dismiss(&mut self, mac: MacAddr) -> u64 {
        self.catch_up();
        let now = clock();
        let Some(entry) = self.table.get_mut(mac) else { return 0 };
        let effect = entry.presence.end(now);
        let dropped = entry.presence.queue().clear();
        self.carry_out(mac, effect, now);
        self.forget(mac);
        dropped
    }

    /// A captured port's numbers; those of the whole machine are left at zero.
    pub(crate) fn status(&mut self, mac: MacAddr) -> Option<Status> {
        let dropped = self.table.drops(mac);
        self.table.get(mac).map(|entry| {
            let judge = entry.presence.judge();
            let noted = entry.presence.ignored().iter().map(|seen| {
                let last = judge.describe(seen.last.ethernet());
                (judge.kind(seen.kind), Noted { frames: seen.frames, last, at: shown(seen.at) })
            });
            Status {
                mode: entry.presence.mode(),
                answered: entry.presence.answered().clone(),
                held_frames: 0,
                held_bytes: 0,
                dropped,
                last_wake: None,
                ignored: noted.collect(),
            }
        })
    }

    /// What a port is on its network, as far as it is known here; else `given`.
    pub(crate) fn persona(&self, mac: MacAddr, given: Persona) -> Persona {
        if let Some(watch) = self.watched.get(&mac).and_then(|token| self.watches.get(token)) {
            return watch.persona().clone();
        }
        self.table.get(mac).map_or(given, |entry| entry.presence.judge().proxy().persona().clone())
    }

    /// The bridge's MTU, in octets.
    pub(crate) const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Listens to a running guest; if it is listened to already, only `afresh` starts anew.
    pub(crate) fn watch(
        &mut self,
        name: MachineName,
        mac: MacAddr,
        tap: &str,
        (persona, afresh): (Persona, bool),
    ) -> Result<(), SocketError> {
        if !afresh && self.watched.contains_key(&mac) {
            return Ok(());
        }
        let persona = self.persona(mac, persona);
        let watch = Watch::open(name, mac, tap, persona)?;
        self.unwatch(mac);
        let token = self.next_watch;
        self.next_watch += 1;
        let _ = listen(&self.epoll, watch.socket(), token);
        self.watches.insert(token, watch);
        self.watched.insert(mac, token);
        Ok(())
    }

    /// Listens no longer.
    pub(crate) fn unwatch(&mut self, mac: MacAddr) {
        if let Some(watch) = self.watched.remove(&mac).and_then(|token| self.watches.remove(&token)) {
            self.reaper.close([watch.into_socket()]);
        }
    }

    /// Listens to none of a machine's ports; which were they?
    pub(crate) fn unwatch_all(&mut self, name: &MachineName) -> Vec<MacAddr> {
        let of_machine = |watch: &&Watch| watch.name == *name;
        let ports: Vec<MacAddr> = self.watches.values().filter(of_machine).map(|watch| watch.mac).collect();
        ports.iter().for_each(|mac| self.unwatch(*mac));
        ports
    }

    /// The captured addresses.
    pub(crate) fn captured(&self) -> Vec<MacAddr> {
        self.table.iter().map(|(mac, _)| mac).collect()
    }

    /// Makes sure that a port is captured, and gives the judge that it is to have from now on,
    /// if it has another one.
    fn enter(&mut self, capture: Capture, mode: Mode, now: Timestamp) -> Option<WireJudge> {
        let Capture { name, mut who, vlans, persona: given, anew, flows, manners, queue, waker } = capture;
        let mac = who.mac;
        let mut persona = self.persona(mac, given.clone());
        // The addresses were learned, this one with a lease that another has replaced.
        if let Some(old) = persona.given_up_since(&given).filter(|_| !who.configured) {
            who.addresses.retain(|address| *address != old);
        }
        persona.flows = flows.unwrap_or(persona.flows);
        if anew {
            persona = Persona::default();
        }
        let judge = WireJudge::new(who, persona, manners, self.mtu, now);
        if self.table.get(mac).is_some() {
            self.enter_again(mac, vlans);
            return Some(judge);
        }
        self.reaper.close(self.table.late.remove(&mac).map(|late| late.end(mac)));
        self.count_lost();
        self.count_frames(&name, mac, vlans.is_some());
        let presence = Presence::new(mode, judge, queue, waker);
        self.table.insert(mac, Entry::new((name, vlans), presence, self.losses));
        None
    }

    /// A captured port is captured once more. Its release, if it was on its way, is over.
    fn enter_again(&mut self, mac: MacAddr, vlans: Option<Vlans>) {
        let Some(entry) = self.table.get_mut(mac) else { return };
        let release = entry.release.take();
        let is_other = entry.vlans.is_some() != vlans.is_some();
        entry.vlans = vlans;
        let (name, tagged) = (entry.name.clone(), entry.vlans.is_some());
        // The program may send its frames to the tap, or counts what it should not.
        if is_other || release.as_ref().is_some_and(|release| release.is_turned()) {
            self.settle_losses(mac);
            self.count_frames(&name, mac, tagged);
            if let Some(entry) = self.table.get_mut(mac) {
                entry.progress = Progress::new();
            }
        }
        self.table.releasing.remove(&mac);
        self.reaper.close(release.into_iter().flat_map(|release| release.into_sockets()));
    }

    /// Has a port's frames counted from zero, for an exact handover.
    fn count_frames(&mut self, name: &MachineName, mac: MacAddr, tagged: bool) {
        if tagged {
            // The program would redirect frames with their tags, which the tap must not get.
            self.table.handover.end(mac);
        } else if let Err(error) = self.table.handover.begin(mac) {
            tracing::warn!(machine = %name, %error, "this machine is handed over the plain way");
        }
    }

    /// Counts what the bridge's socket lost of a port's frames up to now.
    fn settle_losses(&mut self, mac: MacAddr) {
        self.count_lost();
        // What was kept away is known until the count ends.
        self.table.drops(mac);
        let losses = self.losses;
        if let Some((entry, handover)) = self.table.with_handover(mac) {
            let behind = handover.counted(mac).map(|counted| entry.progress.behind(counted));
            let lost = losses.since(entry.lost_before).of_port(behind);
            entry.lost_before = losses;
            entry.presence.queue().merge_drops(&lost);
        }
    }

    fn carry_out(&mut self, mac: MacAddr, effect: Effect, now: Timestamp) {
        self.table.carry_out(mac, effect, now, &mut self.replies);
        self.send_replies();
    }
}
