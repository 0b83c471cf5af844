//! Which frame is for which sleeper of a bridge, and when each of them has something to do.
//!
//! Nothing here looks at every sleeper for one frame, except for group frames that any of them
//! might want: address requests go by an index, timers are in order.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt,
};

use dormouse_external::Question as Asked;
use dormouse_net::Vlans;
use dormouse_sys::{Frame, PacketSocket};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::{Audience, Lease, Scanners, summary};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    Drops, Notice, Reason,
    asking::Asking,
    flood::{KEPT_AWAY, Load, window},
    handover::{Handover, Progress},
    index::Index,
    judge::WireJudge,
    late::Late,
    losses::Losses,
    presence::{Effect, Presence, Said},
    queue::Ticket,
    release::Release,
    vlan::{Delivery, Received, outward},
};

/// The captured ports of one bridge.
pub(crate) struct Table {
    entries: HashMap<MacAddr, Box<Entry>>,
    index: Index,
    /// Those that have a [`Entry::release`].
    pub(crate) releasing: BTreeSet<MacAddr>,
    /// Those that have a [`Entry::sniff`].
    pub(crate) sniffing: BTreeSet<MacAddr>,
    /// Those that have a [`Entry::kept_away`].
    flooded: BTreeSet<MacAddr>,
    load: Load,
    /// Ports given back a moment ago; never one that is captured.
    pub(crate) late: HashMap<MacAddr, Late>,
    pub(crate) handover: Box<dyn Handover>,
    pub(crate) scanners: RefCell<Scanners>,
    /// Group frames so far that ask for an address or for names.
    requests: u64,
    doings: Doings,
}

/// What frames and timers lead to.
struct Doings {
    notices: UnboundedSender<Notice>,
    deadlines: BTreeSet<(Timestamp, MacAddr)>,
    asking: Asking,
}

/// One captured port.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: MachineName,
    pub(crate) presence: Presence<WireJudge>,
    /// The VLANs of its port, where the switch tells them apart.
    pub(crate) vlans: Option<Vlans>,
    /// How far it has got with the frames that the handover numbered.
    pub(crate) progress: Progress,
    /// What the bridge's socket had lost when it was captured.
    pub(crate) lost_before: Losses,
    /// While the boundary is open: the group frames that its tap gets.
    pub(crate) sniff: Option<PacketSocket>,
    /// From `prepare` on: to inject into its tap.
    pub(crate) injector: Option<PacketSocket>,
    /// While it is given back.
    pub(crate) release: Option<Box<Release>>,
    /// Group frames that ask for an address or for names, from here on, are counted for it...
    requests_before: u64,
    /// ...but for those that it was shown.
    requests_shown: u64,
    /// Until when its frames are kept away, for they are too many.
    kept_away: Option<Timestamp>,
    /// When it is to be looked at, as the table knows it.
    armed: Option<Timestamp>,
    /// Its lease, as it was last told.
    told: Option<Lease>,
}

impl Entry {
    /// A port that was just captured.
    pub(crate) fn new(
        (name, vlans): (MachineName, Option<Vlans>),
        presence: Presence<WireJudge>,
        lost_before: Losses,
    ) -> Self {
        Self {
            name,
            vlans,
            presence,
            progress: Progress::new(),
            lost_before,
            sniff: None,
            injector: None,
            release: None,
            requests_before: 0,
            requests_shown: 0,
            kept_away: None,
            armed: None,
            told: None,
        }
    }

    /// The sockets that it leaves when it is forgotten.
    pub(crate) fn into_sockets(self) -> impl Iterator<Item = PacketSocket> {
        let released = self.release.into_iter().flat_map(|release| release.into_sockets());
        self.sniff.into_iter().chain(self.injector).chain(released)
    }
}

impl Table {
    /// No sleepers.
    pub(crate) fn new(
        handover: Box<dyn Handover>,
        scanners: Scanners,
        notices: UnboundedSender<Notice>,
        asking: Asking,
    ) -> Self {
        Self {
            entries: HashMap::new(),
            index: Index::default(),
            releasing: BTreeSet::new(),
            sniffing: BTreeSet::new(),
            flooded: BTreeSet::new(),
            load: Load::default(),
            late: HashMap::new(),
            handover,
            scanners: RefCell::new(scanners),
            requests: 0,
            doings: Doings { notices, deadlines: BTreeSet::new(), asking },
        }
    }

    /// The captured port with this address.
    pub(crate) fn get(&self, mac: MacAddr) -> Option<&Entry> {
        self.entries.get(&mac).map(|entry| &**entry)
    }

    /// The same, to change.
    pub(crate) fn get_mut(&mut self, mac: MacAddr) -> Option<&mut Entry> {
        self.entries.get_mut(&mac).map(|entry| &mut **entry)
    }

    /// The same, and who counts its frames.
    pub(crate) fn with_handover(&mut self, mac: MacAddr) -> Option<(&mut Entry, &mut (dyn Handover + '_))> {
        let entry = self.entries.get_mut(&mac)?;
        Some((entry, &mut *self.handover))
    }

    /// The same, and what is known of sources.
    pub(crate) fn with_scanners(&mut self, mac: MacAddr) -> Option<(&mut Entry, &RefCell<Scanners>)> {
        self.entries.get_mut(&mac).map(|entry| (&mut **entry, &self.scanners))
    }

    /// All captured ports.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MacAddr, &Entry)> {
        self.entries.iter().map(|(mac, entry)| (*mac, &**entry))
    }

    /// Captures a port that is not.
    pub(crate) fn insert(&mut self, mac: MacAddr, mut entry: Entry) {
        entry.requests_before = self.requests;
        self.entries.insert(mac, Box::new(entry));
    }

    /// Forgets a port.
    pub(crate) fn remove(&mut self, mac: MacAddr) -> Option<Entry> {
        self.index.remove(mac);
        self.releasing.remove(&mac);
        self.sniffing.remove(&mac);
        self.flooded.remove(&mac);
        let entry = *self.entries.remove(&mac)?;
        if let Some(armed) = entry.armed {
            self.doings.deadlines.remove(&(armed, mac));
        }
        Some(entry)
    }

    /// The port's addresses may be others now.
    pub(crate) fn reindex(&mut self, mac: MacAddr) {
        if let Some(entry) = self.entries.get(&mac) {
            let judge = entry.presence.judge();
            let (addresses, names) =
                (&judge.proxy().identity().addresses, judge.proxy().persona().answers_to());
            self.index.insert(mac, addresses, &names, judge.is_curious());
        }
    }

    /// What was dropped of a port's frames. Requests for addresses and names of others, which it is not shown,
    /// are counted once for all sleepers, and make part of the sum of each.
    pub(crate) fn drops(&mut self, mac: MacAddr) -> Drops {
        let Some(entry) = self.entries.get_mut(&mac) else { return Drops::default() };
        entry.presence.queue().count_drops(Reason::Flood, self.handover.take_shed(mac));
        let mut drops = entry.presence.held().drops().clone();
        let requests = self.requests.saturating_sub(entry.requests_before);
        drops.add(Reason::Filtered, requests.saturating_sub(entry.requests_shown));
        drops
    }

    /// Gives a frame to whom it is for; what is to be sent is added to `replies`.
    pub(crate) fn deliver(&mut self, frame: &Frame<'_>, now: Timestamp, replies: &mut Vec<Vec<u8>>) {
        let Some(destination) = MacAddr::from_slice(frame.bytes) else { return };
        if destination.is_multicast() {
            self.deliver_to_group(frame, now, replies);
        } else if let Some(entry) = self.entries.get_mut(&destination) {
            entry.progress.note(frame.mark);
            if entry.kept_away.is_some() && self.handover.counted(destination).is_none() {
                // Where the kernel does not help they are at least not looked at.
                self.load.note(Some(destination));
                entry.presence.queue().count_drops(Reason::Flood, 1);
                return;
            }
            let received = Received::new(*frame, now, Some(&self.scanners));
            match received.at(entry.vlans.as_ref()) {
                Delivery::Frame(arrival) => {
                    let effect = entry.presence.take(arrival);
                    let useful = effect.held && !effect.crowded;
                    self.load.note((!useful).then_some(destination));
                    self.doings.carry_out(destination, entry, effect, now, replies);
                }
                Delivery::Elsewhere => {}
                Delivery::Cut => entry.presence.queue().count_drops(Reason::TooLong, 1),
            }
        } else if let Some(late) = self.late.get_mut(&destination) {
            late.pass(frame);
        }
    }

    /// A batch of frames is done; `full`: more may wait. Keeps away who floods the thread.
    pub(crate) fn end_batch(&mut self, full: bool, now: Timestamp) {
        for mac in self.load.end_batch(full) {
            let Some(entry) = self.entries.get_mut(&mac) else { continue };
            if !entry.presence.keeps_away() {
                continue;
            }
            if self.flooded.insert(mac) {
                tracing::debug!(machine = %entry.name, %mac, "is flooded: frames for it are dropped");
            }
            entry.kept_away = Some(now + KEPT_AWAY);
            self.doings.rearm(mac, entry);
        }
        let window = window(self.flooded.len());
        for mac in &self.flooded {
            let Some(entry) = self.entries.get(mac) else { continue };
            let read = entry.progress.highest();
            // What has not come by then was lost.
            let read = if full { read } else { self.handover.counted(*mac).unwrap_or(read) };
            self.handover.admit(*mac, read.saturating_add(window));
        }
    }

    /// Keeps frames for a port away no longer.
    pub(crate) fn admit(&mut self, mac: MacAddr) {
        if self.flooded.remove(&mac) {
            self.handover.admit(mac, u64::MAX);
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            entry.kept_away = None;
        }
    }

    /// A group frame is for every sleeper but the one that sent it, which may still run; a request
    /// for an address, or a question for names, is for those who have it.
    fn deliver_to_group(&mut self, captured: &Frame<'_>, now: Timestamp, replies: &mut Vec<Vec<u8>>) {
        if self.entries.is_empty() {
            return;
        }
        let Self { entries, scanners, doings, index, requests, .. } = self;
        let received = Received::new(*captured, now, Some(scanners));
        let source = captured.bytes.get(6..).and_then(MacAddr::from_slice);
        let mut give = |mac: MacAddr, entry: &mut Entry| {
            if source != Some(mac)
                && let Delivery::Frame(arrival) = received.at(entry.vlans.as_ref())
            {
                let effect = entry.presence.take(arrival);
                doings.carry_out(mac, entry, effect, now, replies);
            }
        };
        // A tag in front changes nothing of what it asks for.
        let parsed = dormouse_wire::Frame::new(captured.bytes).filter(|_| !captured.truncated);
        let concerned = parsed.and_then(|frame| match Audience::of(&frame) {
            Audience::Owners { asked: Some(asked), claimed } => {
                scanners.borrow_mut().note(&frame, now);
                Some(index.concerned(asked, claimed))
            }
            Audience::Named(names) => Some(index.named(&names)),
            _ => None,
        });
        let Some(concerned) = concerned else {
            entries.iter_mut().for_each(|(mac, entry)| give(*mac, entry));
            return;
        };
        *requests += 1;
        for mac in concerned {
            if let Some(entry) = entries.get_mut(&mac) {
                entry.requests_shown += 1;
                give(mac, entry);
            }
        }
    }

    /// The next time at which [`Table::due`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.doings.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due at `now`, and what programs said meanwhile.
    pub(crate) fn due(&mut self, now: Timestamp, replies: &mut Vec<Vec<u8>>) {
        while let Some((at, mac)) = self.doings.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.doings.deadlines.remove(&(at, mac));
            if self.get(mac).and_then(|entry| entry.kept_away).is_some_and(|until| until <= now) {
                self.admit(mac);
            }
            if let Some(entry) = self.entries.get_mut(&mac) {
                entry.armed = None;
                let effect = entry.presence.due(now);
                self.doings.carry_out(mac, entry, effect, now, replies);
                // What it did not do now it would not do at once: no loop without end.
                if entry.armed.is_some_and(|at| at <= now) {
                    self.doings.arm(mac, entry, Some(now + LATER));
                }
            }
        }
        for (mac, ticket, said) in self.doings.asking.answers() {
            self.resolve(mac, ticket, said, now, replies);
        }
    }

    fn resolve(
        &mut self,
        mac: MacAddr,
        ticket: Ticket,
        said: Said,
        now: Timestamp,
        replies: &mut Vec<Vec<u8>>,
    ) {
        if let Some(entry) = self.entries.get_mut(&mac) {
            let effect = entry.presence.resolve(ticket, said, now);
            self.doings.carry_out(mac, entry, effect, now, replies);
        }
    }

    /// Carries out what something other than a frame led to.
    pub(crate) fn carry_out(
        &mut self,
        mac: MacAddr,
        effect: Effect,
        now: Timestamp,
        replies: &mut Vec<Vec<u8>>,
    ) {
        if let Some(entry) = self.entries.get_mut(&mac) {
            self.doings.carry_out(mac, entry, effect, now, replies);
        }
    }

    /// Tells what a port is on its network.
    pub(crate) fn tell_persona(&mut self, mac: MacAddr) {
        if let Some(entry) = self.entries.get_mut(&mac) {
            self.doings.tell_persona(mac, entry);
        }
    }

    /// Tells something without being asked.
    pub(crate) fn tell(&self, notice: Notice) {
        self.doings.tell(notice);
    }
}

/// What is due again at once is put off so long.
const LATER: std::time::Duration = std::time::Duration::from_millis(1);

impl Doings {
    fn carry_out(
        &mut self,
        mac: MacAddr,
        entry: &mut Entry,
        effect: Effect,
        now: Timestamp,
        replies: &mut Vec<Vec<u8>>,
    ) {
        let vlans = entry.vlans.as_ref();
        replies.extend(effect.replies.into_iter().filter_map(|reply| outward(reply, vlans)));
        if let Some(frame) = effect.wake {
            self.tell(Notice::Wake { name: entry.name.clone(), frame });
        }
        for question in effect.questions {
            let manners = entry.presence.judge().manners();
            let answer = manners.programs.get(question.program).and_then(|asked| {
                let frame = question.packet.ethernet();
                asked.program.ask(Asked {
                    machine: entry.name.clone(),
                    summary: summary(frame),
                    frame: frame.to_vec(),
                })
            });
            match answer {
                Some(answer) => self.asking.add(mac, question.ticket, answer),
                // Too much waits for an answer already.
                None => {
                    let effect = entry.presence.resolve(question.ticket, Said::Nothing, now);
                    self.carry_out(mac, entry, effect, now, replies);
                }
            }
        }
        if entry.presence.judge().proxy().persona().lease != entry.told {
            self.tell_persona(mac, entry);
        }
        self.rearm(mac, entry);
    }

    fn rearm(&mut self, mac: MacAddr, entry: &mut Entry) {
        let deadline = entry.presence.deadline().into_iter().chain(entry.kept_away).min();
        self.arm(mac, entry, deadline);
    }

    fn arm(&mut self, mac: MacAddr, entry: &mut Entry, deadline: Option<Timestamp>) {
        if entry.armed == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut entry.armed, deadline) {
            self.deadlines.remove(&(old, mac));
        }
        self.deadlines.extend(deadline.map(|at| (at, mac)));
    }

    fn tell_persona(&self, mac: MacAddr, entry: &mut Entry) {
        let persona = entry.presence.judge().proxy().persona().clone();
        entry.told.clone_from(&persona.lease);
        self.tell(Notice::Persona { name: entry.name.clone(), mac, persona: Box::new(persona) });
    }

    fn tell(&self, notice: Notice) {
        // Nobody listens any more only when the daemon ends.
        let _ = self.notices.send(notice);
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
