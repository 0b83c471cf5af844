//! What the platform and the surrogate tell without being asked.

use std::net::IpAddr;

use dormouse_api_types::EventKind;
use dormouse_machine::lifecycle::{Cause, Event};
use dormouse_types::MacAddr;
use dormouse_wire::Persona;

use super::{Message, room::Favour, run::Driver};
use crate::events::Draft;

/// Addresses of each family that are learned of one interface at most: those seen last stay.
const LEARNED: usize = 8;

impl Driver {
    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Order { order, wait, reply } => self.order(order, wait, reply),
            Message::Remove { force, reply } => self.remove(force, reply),
            Message::Rewrite { file, what } => self.rewrite_later(file, what),
            Message::MakeRoom { why, reply } => self.make_room(Favour { why, reply }),
            Message::Presence(notice) => self.presence_notice(notice),
            Message::Platform(notice) => self.platform_notice(notice),
        }
    }

    fn platform_notice(&mut self, notice: dormouse_platform::Notice) {
        use dormouse_platform::Notice;
        match notice {
            Notice::Spawned(_) => self.event(Event::Spawned),
            Notice::GuestShutdown(_) => self.event(Event::GuestShutdown),
            Notice::Exited(_, why) => self.event(Event::Exited(why)),
            Notice::Changed(_, by) => self.event(Event::Changed(by)),
            Notice::Redefined(_) => self.event(Event::Redefined),
            Notice::Undefined(_, by) => {
                if !self.life.is_undefined() {
                    self.warn(format!("its platform knows it no longer: {by}"));
                }
                self.event(Event::Undefined(by));
            }
            Notice::Unreachable(_, why) => self.unreachable(why),
        }
    }

    /// The platform cannot be asked: the machine goes on as it is, and those that sleep are answered for.
    pub(super) fn unreachable(&mut self, why: String) {
        let since = match self.unreachable.take() {
            Some((since, _)) => since,
            None => {
                self.warn(format!("its platform cannot be asked: {why}"));
                self.now()
            }
        };
        self.unreachable = Some((since, why));
    }

    /// The platform has said what is so.
    pub(super) fn reached(&mut self) {
        if self.unreachable.take().is_some() {
            let name = &self.subject.spec.name;
            tracing::info!(machine = %name, "its platform can be asked again");
            let told = Draft::of(name, EventKind::Adopted).cause(Some("its platform can be asked again"));
            self.shared.events.publish(told);
        }
    }

    fn presence_notice(&mut self, notice: dormouse_surrogate::Notice) {
        use dormouse_surrogate::Notice;
        match notice {
            Notice::Wake { frame, .. } => self.wanted(Cause::Packet(frame)),
            Notice::Heard { .. } => self.heard.send_modify(|count| *count += 1),
            Notice::Learned { mac, addresses, .. } => self.learned(mac, &addresses),
            Notice::BridgeLost { bridge, why } => {
                let why = format!("bridge {bridge} is lost: {why}");
                self.event(Event::Lost(why.clone()));
                if self.life.absent().is_none() {
                    self.warn(why);
                }
            }
            Notice::BridgeBack { .. } => self.event(Event::Back),
            Notice::Persona { mac, persona, .. } => self.persona(mac, *persona),
        }
    }

    fn learned(&mut self, mac: MacAddr, addresses: &[IpAddr]) {
        let known = self.journal.record().learned.get(&mac).cloned().unwrap_or_default();
        let seen = seen_last(&known, addresses);
        if seen == known {
            return;
        }
        tracing::info!(machine = %self.subject.spec.name, %mac, ?addresses, "learned addresses");
        self.journal.change(|record| drop(record.learned.insert(mac, seen)), None);
    }

    /// Keeps what an interface is on its network, so that a later daemon can go on being it.
    fn persona(&mut self, mac: MacAddr, persona: Persona) {
        let is_ours = self.subject.spec.interfaces.iter().any(|interface| interface.mac == mac);
        let before = self.journal.record().personas.get(&mac);
        if !is_ours || before == Some(&persona) {
            return;
        }
        // Who got another lease has the address of the old one no longer.
        let given_up = before.and_then(|before| persona.given_up_since(before));
        self.journal.change(
            |record| {
                if let (Some(old), Some(learned)) = (given_up, record.learned.get_mut(&mac)) {
                    learned.retain(|address| *address != old);
                }
                record.personas.insert(mac, persona);
            },
            None,
        );
    }
}

/// The addresses `known` of an interface and those just `seen`: of each family the ones seen last, in
/// that order.
fn seen_last(known: &[IpAddr], seen: &[IpAddr]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = known.iter().filter(|address| !seen.contains(address)).copied().collect();
    for address in seen {
        all.retain(|known| known != address);
        all.push(*address);
    }
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = all.into_iter().partition(IpAddr::is_ipv4);
    for family in [&mut v4, &mut v6] {
        family.drain(..family.len().saturating_sub(LEARNED));
    }
    v4.append(&mut v6);
    v4
}
