//! Which frame is for which sleeper of a bridge.

use std::{collections::HashMap, fmt};

use dormouse_net::Vlans;
use dormouse_sys::{Frame, PacketSocket};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    Notice, Reason,
    handover::{Handover, Progress},
    judge::WireJudge,
    late::Late,
    losses::Losses,
    presence::{Effect, Presence},
    release::Release,
    vlan::{Arrival, Delivery, outward},
};

/// The captured ports of one bridge.
pub(crate) struct Table {
    pub(crate) entries: HashMap<MacAddr, Entry>,
    /// Ports given back a moment ago; never one that is captured.
    pub(crate) late: HashMap<MacAddr, Late>,
    pub(crate) handover: Box<dyn Handover>,
    notices: UnboundedSender<Notice>,
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
    pub(crate) release: Option<Release>,
}

impl Entry {
    /// The sockets that it leaves when it is forgotten.
    pub(crate) fn into_sockets(self) -> impl Iterator<Item = PacketSocket> {
        let released = self.release.into_iter().flat_map(Release::into_sockets);
        self.sniff.into_iter().chain(self.injector).chain(released)
    }
}

impl Table {
    /// No sleepers.
    pub(crate) fn new(handover: Box<dyn Handover>, notices: UnboundedSender<Notice>) -> Self {
        Self { entries: HashMap::new(), late: HashMap::new(), handover, notices }
    }

    /// Gives a frame to whom it is for; what is to be sent is added to `replies`.
    pub(crate) fn deliver(&mut self, frame: &Frame<'_>, now: Timestamp, replies: &mut Vec<Vec<u8>>) {
        let Some(destination) = MacAddr::from_slice(frame.bytes) else { return };
        if destination.is_multicast() {
            self.deliver_to_all(frame, now, replies);
        } else if let Some(entry) = self.entries.get_mut(&destination) {
            entry.progress.note(frame.mark);
            let effect = match Arrival::new(*frame).at(entry.vlans.as_ref()) {
                Delivery::Packet(packet) => entry.presence.take(&packet, now),
                Delivery::Elsewhere => return,
                Delivery::Cut => {
                    entry.presence.queue().count_drops(Reason::TooLong, 1);
                    return;
                }
            };
            apply(&self.notices, entry, effect, replies);
        } else if let Some(late) = self.late.get_mut(&destination) {
            late.pass(frame);
        }
    }

    /// A group frame is for every sleeper but the one that sent it, which may still run.
    fn deliver_to_all(&mut self, frame: &Frame<'_>, now: Timestamp, replies: &mut Vec<Vec<u8>>) {
        let arrival = Arrival::new(*frame);
        let source = frame.bytes.get(6..).and_then(MacAddr::from_slice);
        for (mac, entry) in &mut self.entries {
            if source != Some(*mac)
                && let Delivery::Packet(packet) = arrival.at(entry.vlans.as_ref())
            {
                let effect = entry.presence.take(&packet, now);
                apply(&self.notices, entry, effect, replies);
            }
        }
    }

    /// Tells what is to be told, and collects what is to be sent.
    pub(crate) fn apply(&self, mac: MacAddr, effect: Effect, replies: &mut Vec<Vec<u8>>) {
        if let Some(entry) = self.entries.get(&mac) {
            apply(&self.notices, entry, effect, replies);
        }
    }

    /// Tells something without being asked.
    pub(crate) fn tell(&self, notice: Notice) {
        // Nobody listens any more only when the daemon ends.
        let _ = self.notices.send(notice);
    }
}

fn apply(notices: &UnboundedSender<Notice>, entry: &Entry, effect: Effect, replies: &mut Vec<Vec<u8>>) {
    let vlans = entry.vlans.as_ref();
    replies.extend(effect.replies.into_iter().filter_map(|reply| outward(reply, vlans)));
    if let Some(frame) = effect.wake {
        let _ = notices.send(Notice::Wake { name: entry.name.clone(), frame });
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("entries", &self.entries).finish_non_exhaustive()
    }
}
