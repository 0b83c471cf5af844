//! What a frame is to a sleeper, by the rules of the wire.
//!
//! Asked in this order: what is answered ([`Proxy`]), the services that are spoken for it
//! ([`Standin`]), the programs of the user, the ignore list and the wake rules ([`Rules`]). What a
//! scanner sends does not wake.

use std::{net::IpAddr, sync::Arc};

use dormouse_external::External;
use dormouse_standin::{Out, Standin};
use dormouse_sys::VnetHdr;
use dormouse_types::{MachineName, Matcher, Service, Timestamp, WakeRule, What};
use dormouse_wire::{
    Audience, Deed, Frame, Identity, Network, Outcome, Persona, Policy, Proxy, Rules, Verdict, protocol,
    summary,
};

use crate::{
    Rehearsal,
    packet::{Arrival, Packet},
    presence::{Due, Judge, Judgement, Kind},
};

/// How a machine wants its frames judged; the same for all its ports.
#[derive(Debug)]
pub(crate) struct Manners {
    pub(crate) name: MachineName,
    pub(crate) wake: Arc<[WakeRule]>,
    pub(crate) ignore: Arc<[Matcher]>,
    pub(crate) services: Arc<[Service]>,
    pub(crate) programs: Vec<Asked>,
    pub(crate) policy: Policy,
    /// For the services: see [`dormouse_standin::Settings::secret`].
    pub(crate) secret: [u8; 16],
}

/// A program that is asked about some frames.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) frames: Arc<[Matcher]>,
    pub(crate) program: External,
}

/// Judges for one port.
pub(crate) struct WireJudge {
    proxy: Proxy,
    rules: Rules,
    /// One for each program: what it is asked about is what these ignore.
    asked: Box<[Rules]>,
    /// While it is in use.
    standin: Option<Box<Standin>>,
    manners: Arc<Manners>,
    /// The bridge's, in octets.
    mtu: u16,
}

impl WireJudge {
    /// Judges for the interface `who` of a machine from `now` on.
    #[must_use]
    pub(crate) fn new(
        who: Identity,
        persona: Persona,
        manners: Arc<Manners>,
        mtu: u16,
        now: Timestamp,
    ) -> Self {
        let asked = manners.programs.iter().map(|asked| Rules::new([].into(), asked.frames.clone()));
        Self {
            proxy: Proxy::new(who, persona, manners.policy, now),
            rules: Rules::new(manners.wake.clone(), manners.ignore.clone()),
            asked: asked.collect(),
            standin: None,
            mtu,
            manners,
        }
    }

    /// What is answered for.
    pub(crate) const fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Might the machine's rules name requests for addresses, or questions for names, that are not its own?
    pub(crate) fn is_curious(&self) -> bool {
        let Manners { wake, programs, .. } = &*self.manners;
        let mut asked = programs.iter().flat_map(|asked| asked.frames.iter());
        // In a program's frames the words of IP name what is sent to groups as well.
        wake.iter().any(|rule| matches!(rule.matcher.what, What::Any | What::EtherType(_)))
            || asked.any(|frames| {
                matches!(frames.what, What::Any | What::EtherType(_) | What::Udp(_) | What::Ip(_))
            })
    }

    /// What the machine wants.
    pub(crate) const fn manners(&self) -> &Arc<Manners> {
        &self.manners
    }

    /// A kind of frames, in words of the machine file.
    pub(crate) fn kind(&self, kind: Kind) -> String {
        let text = match kind {
            Kind::Scanner => Some("scanner".into()),
            Kind::Ignored(index) => self.manners.ignore.get(index).map(|what| format!("ignore {what}")),
            Kind::NotYet(index) => self.manners.wake.get(index).map(ToString::to_string),
        };
        text.unwrap_or_default()
    }

    /// What would become of a frame, judged by this judge, which is not to be used any more.
    pub(crate) fn rehearse(mut self, ethernet: &[u8], now: Timestamp) -> Rehearsal {
        let Some(packet) = Packet::new(VnetHdr::PLAIN, ethernet) else {
            return Rehearsal::Ignored("no Ethernet frame".into());
        };
        let arrival = Arrival::again(&packet, now, None);
        match self.judge(&arrival, true) {
            Judgement::Answer { wake: Some(why), .. } => Rehearsal::Wakes(why),
            Judgement::Answer { by, .. } => Rehearsal::Answered(by.into()),
            Judgement::Ask(index) => {
                let name = self.manners.programs.get(index).map(|asked| asked.name.clone());
                Rehearsal::Asked(name.unwrap_or_default())
            }
            Judgement::Wake(Some(why)) => Rehearsal::Wakes(why.into()),
            Judgement::Wake(None) => Rehearsal::Wakes(self.rule_of(&arrival)),
            Judgement::Nothing => Rehearsal::Ignored("the machine would do nothing with it".into()),
            Judgement::Ignore(kind) => Rehearsal::Ignored(self.kind(kind)),
            Judgement::Other(Some(kind)) => Rehearsal::Held(self.kind(kind)),
            Judgement::Other(None) => Rehearsal::Held("no wake rule names it".into()),
        }
    }

    /// The wake rule that names a frame, which was judged once already.
    fn rule_of(&self, arrival: &Arrival<'_>) -> String {
        let mut rules = Rules::new(self.manners.wake.clone(), self.manners.ignore.clone());
        let verdict = arrival
            .frame()
            .map(|frame| rules.judge(&frame, self.proxy.identity(), self.proxy.persona(), arrival.now()));
        match verdict {
            Some(Verdict::Wake(index) | Verdict::NotYet { rule: index, .. }) => {
                self.kind(Kind::NotYet(index))
            }
            _ => String::new(),
        }
    }

    /// Is its source a scanner? Never one that the machine has a connection with, whatever others do under
    /// its address; what it sends is no try.
    fn is_from_scanner(&self, frame: &Frame<'_>, arrival: &Arrival<'_>) -> bool {
        !self.proxy.persona().is_connected_with(frame) && arrival.is_from_scanner(frame)
    }

    /// Offers a frame to the services. `None`: they have nothing to do with it.
    fn serve(&mut self, frame: &Frame<'_>, arrival: &Arrival<'_>) -> Option<Judgement> {
        let port = self.tcp_port(frame)?;
        if self.standin.is_none() && self.manners.services.iter().all(|service| service.port != port) {
            return None;
        }
        let standin = self.standin.get_or_insert_with(|| {
            let who = self.proxy.identity();
            Box::new(Standin::new(dormouse_standin::Settings {
                name: self.manners.name.clone(),
                mac: who.mac,
                addresses: who.addresses.as_slice().into(),
                services: self.manners.services.clone(),
                mtu: self.mtu,
                secret: self.manners.secret,
            }))
        });
        let Out { frames, wake, taken } = standin.take(frame, arrival.now());
        self.rest();
        if !taken {
            return None;
        }
        let wake = wake.filter(|_| !self.is_from_scanner(frame, arrival));
        Some(Judgement::Answer { by: "service", frames, wake })
    }

    /// The TCP port of ours that a frame is for, if there are services.
    fn tcp_port(&self, frame: &Frame<'_>) -> Option<u16> {
        let who = self.proxy.identity();
        if self.manners.services.is_empty() || frame.dst() != who.mac || frame.src() == who.mac {
            return None;
        }
        let (protocol, to, ports): (_, IpAddr, _) = match frame.network() {
            Network::Ipv4(ip) => (ip.protocol, ip.dst.into(), ip.ports()),
            Network::Ipv6(ip) => (ip.protocol, ip.dst.into(), ip.ports()),
            Network::Arp(_) | Network::Other(_) => return None,
        };
        ports.filter(|_| protocol == protocol::TCP && who.has(to)).map(|(_, port)| port)
    }

    /// Gives the services' memory back when nobody is connected.
    fn rest(&mut self) {
        if self.standin.as_ref().is_some_and(|standin| standin.deadline().is_none()) {
            self.standin = None;
        }
    }

    /// The program that is to be asked about a frame.
    fn asks(&mut self, frame: &Frame<'_>, now: Timestamp) -> Option<usize> {
        let (who, persona) = (self.proxy.identity(), self.proxy.persona());
        self.asked
            .iter_mut()
            .position(|frames| matches!(frames.judge(frame, who, persona, now), Verdict::Ignore(_)))
    }

    fn by_rules(&mut self, frame: &Frame<'_>, arrival: &Arrival<'_>) -> Judgement {
        let who = self.proxy.identity();
        let verdict = self.rules.judge(frame, who, self.proxy.persona(), arrival.now());
        match verdict {
            Verdict::Ignore(entry) => return Judgement::Ignore(Kind::Ignored(entry)),
            Verdict::Unnamed | Verdict::NotYet { .. }
                if asks_for_another(frame, who, self.proxy.persona()) =>
            {
                return Judgement::Nothing;
            }
            Verdict::Wake(_) | Verdict::NotYet { .. } | Verdict::Unnamed => {}
        }
        let scanner = self.is_from_scanner(frame, arrival);
        match verdict {
            Verdict::Wake(_) | Verdict::NotYet { .. } if scanner => Judgement::Other(Some(Kind::Scanner)),
            Verdict::Wake(_) => Judgement::Wake(None),
            Verdict::NotYet { rule, .. } => Judgement::Other(Some(Kind::NotYet(rule))),
            Verdict::Unnamed | Verdict::Ignore(_) => Judgement::Other(None),
        }
    }
}

impl Judge for WireJudge {
    fn judge(&mut self, arrival: &Arrival<'_>, asleep: bool) -> Judgement {
        let now = arrival.now();
        let Some(frame) = arrival.frame() else { return Judgement::Nothing };
        if !frame.is_group() {
            // Noted whoever answers it: what a scanner tries first may be answered.
            self.is_from_scanner(&frame, arrival);
        }
        match self.proxy.take(&frame, now) {
            (by, Outcome::Reply(frame)) => return Judgement::Answer { by, frames: vec![frame], wake: None },
            (_, Outcome::Hold) => return Judgement::Other(None),
            (_, Outcome::Consume(_)) => return Judgement::Nothing,
            (_, Outcome::Wake(why)) => return Judgement::Wake(Some(why)),
            (_, Outcome::Pass) => {}
        }
        if asleep && let Some(served) = self.serve(&frame, arrival) {
            return served;
        }
        match self.asks(&frame, now) {
            Some(program) => Judgement::Ask(program),
            None => self.by_rules(&frame, arrival),
        }
    }

    fn judge_by_rules(&mut self, arrival: &Arrival<'_>) -> Judgement {
        match arrival.frame() {
            Some(frame) => self.by_rules(&frame, arrival),
            None => Judgement::Nothing,
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let standin = self.standin.as_ref().and_then(|standin| standin.deadline());
        self.proxy.deadline().into_iter().chain(standin).min()
    }

    fn due(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        if self.proxy.deadline().is_some_and(|at| at <= now) {
            for deed in self.proxy.due(now) {
                match deed {
                    Deed::Send(by, frame) => due.sends.push((by, frame)),
                    Deed::Wake(why) => due.wake = Some(why.into()),
                }
            }
        }
        if let Some(standin) = self.standin.as_mut().filter(|s| s.deadline().is_some_and(|at| at <= now)) {
            let Out { frames, wake, .. } = standin.due(now);
            due.replies.extend(frames);
            due.wake = due.wake.or(wake);
            self.rest();
        }
        due
    }

    fn end(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.standin.take().map_or_else(Vec::new, |mut standin| standin.end(now).frames)
    }

    fn is_close(&self, arrival: &Arrival<'_>) -> bool {
        Frame::new(arrival.ethernet()).is_some_and(|frame| self.proxy.persona().is_closed_by(&frame))
    }

    fn describe(&self, ethernet: &[u8]) -> String {
        summary(ethernet)
    }
}

/// Is it a group frame that asks for an address which is not the sleeper's, or for names of which none is?
///
/// Announcements do not ask: a guest updates its table by them. Nothing is known of a sleeper
/// without addresses.
fn asks_for_another(frame: &Frame<'_>, who: &Identity, persona: &Persona) -> bool {
    if !frame.is_group() {
        return false;
    }
    match Audience::of(frame) {
        Audience::Owners { asked, .. } => {
            asked.is_some_and(|asked| !who.addresses.is_empty() && !who.has(asked))
        }
        Audience::Named(names) => {
            let own = persona.answers_to();
            !names.iter().any(|name| own.contains(name))
        }
        Audience::Everyone | Audience::Nobody => false,
    }
}

impl std::fmt::Debug for WireJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireJudge").field("who", self.proxy.identity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_types::MacAddr;
    use dormouse_wire::{ScanLimits, Scanners};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1);
    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    fn manners(wake: &[&str], ignore: &[&str]) -> Manners {
        Manners {
            name: "web".parse().unwrap(),
            wake: wake.iter().map(|rule| rule.parse().unwrap()).collect(),
            ignore: ignore.iter().map(|frames| frames.parse().unwrap()).collect(),
            services: [].into(),
            programs: vec![],
            policy: Policy::default(),
            secret: [0; 16],
        }
    }

    fn judge_of(manners: Manners) -> WireJudge {
        let who = Identity { mac: MAC, addresses: vec![[10, 9, 0, 2].into()], configured: true };
        WireJudge::new(who, Persona::default(), Arc::new(manners), 1500, NOW)
    }

    fn judge() -> WireJudge {
        judge_of(manners(&["any-unicast"], &[]))
    }

    fn judged(judge: &mut WireJudge, ethernet: &[u8]) -> Judgement {
        let packet = Packet::new(VnetHdr::PLAIN, ethernet).unwrap();
        judge.judge(&Arrival::again(&packet, NOW, None), true)
    }

    fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    fn unicast() -> Vec<u8> {
        [&MAC.0[..], &[2, 0, 0, 0, 0, 1, 0x12, 0x34, 1, 2, 3]].concat()
    }

    #[test]
    fn address_requests_are_answered_or_ignored_and_announcements_kept() {
        let for_it = judged(&mut judge(), &arp_request([10, 9, 0, 1], [10, 9, 0, 2]));
        assert!(matches!(for_it, Judgement::Answer { .. }), "{for_it:?}");
        let for_another = judged(&mut judge(), &arp_request([10, 9, 0, 1], [10, 9, 0, 3]));
        assert_eq!(for_another, Judgement::Nothing);
        let announcement = judged(&mut judge(), &arp_request([10, 9, 0, 1], [10, 9, 0, 1]));
        assert_eq!(announcement, Judgement::Other(None));
    }

    #[test]
    fn unicast_wakes_unless_it_is_ignored_or_too_rare() {
        assert_eq!(judged(&mut judge(), &unicast()), Judgement::Wake(None));
        let mut ignoring = judge_of(manners(&["any-unicast"], &["ethertype:0x1234"]));
        assert_eq!(judged(&mut ignoring, &unicast()), Judgement::Ignore(Kind::Ignored(0)));
        assert_eq!(ignoring.kind(Kind::Ignored(0)), "ignore ethertype:0x1234");
        let mut twice = judge_of(manners(&["any-unicast rate 2/10s"], &[]));
        assert_eq!(judged(&mut twice, &unicast()), Judgement::Other(Some(Kind::NotYet(0))));
        assert_eq!(judged(&mut twice, &unicast()), Judgement::Wake(None));
        assert_eq!(twice.kind(Kind::NotYet(0)), "any-unicast rate 2/10s");
    }

    #[test]
    fn a_rehearsal_names_who_decides() {
        let answered = judge().rehearse(&arp_request([10, 9, 0, 1], [10, 9, 0, 2]), NOW);
        assert!(matches!(answered, Rehearsal::Answered(by) if by == "arp"));
        assert_eq!(judge().rehearse(&unicast(), NOW), Rehearsal::Wakes("any-unicast".into()));
        let ignoring = judge_of(manners(&["any-unicast"], &["ethertype:0x1234"]));
        assert_eq!(ignoring.rehearse(&unicast(), NOW), Rehearsal::Ignored("ignore ethertype:0x1234".into()));
        let magic = judge_of(manners(&["magic"], &[]));
        assert_eq!(magic.rehearse(&unicast(), NOW), Rehearsal::Held("no wake rule names it".into()));
        let rare = judge_of(manners(&["any-unicast rate 2/10s"], &[]));
        assert_eq!(rare.rehearse(&unicast(), NOW), Rehearsal::Held("any-unicast rate 2/10s".into()));
    }

    /// A SYN of `10.9.0.1` from a port to another.
    fn syn(from: u16, to: u16) -> Vec<u8> {
        let mut frame =
            [&MAC.0[..], &[2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]].concat();
        frame.extend([10, 9, 0, 1, 10, 9, 0, 2]);
        frame.extend(from.to_be_bytes());
        frame.extend(to.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn who_has_a_connection_with_it_is_no_scanner_to_it() {
        let flow = |remote: [u8; 4]| dormouse_wire::Flow {
            local: ([10, 9, 0, 2], 22).into(),
            remote: (remote, 40_000).into(),
            snd_nxt: 1,
            rcv_nxt: 1,
            window: 1,
            tsval: None,
            heard: NOW,
        };
        for (remote, wakes) in [([10, 9, 0, 1], 20), ([10, 9, 0, 3], 9)] {
            let persona = Persona { flows: vec![flow(remote)], ..Persona::default() };
            let who = judge().proxy().identity().clone();
            let mut judge = WireJudge::new(who, persona, Arc::new(manners(&["tcp"], &[])), 1500, NOW);
            let scanners = std::cell::RefCell::new(Scanners::new(ScanLimits::default()));
            let mut wake = |port: u16| {
                let bytes = syn(50_000, port);
                let frame = dormouse_sys::Frame {
                    header: VnetHdr::PLAIN,
                    bytes: &bytes,
                    vlan: None,
                    outgoing: false,
                    truncated: false,
                    mark: 0,
                    length: bytes.len(),
                };
                let arrival = Arrival::received(&frame, NOW, Some(&scanners)).unwrap();
                judge.judge(&arrival, true) == Judgement::Wake(None)
            };
            assert_eq!((1..=20).filter(|port| wake(*port)).count(), wakes);
        }
    }

    #[test]
    fn only_who_wants_any_frame_wants_requests_for_others() {
        assert!(!judge().is_curious());
        assert!(judge_of(manners(&["ethertype:0x0806"], &[])).is_curious());
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(bytes in prop::collection::vec(any::<u8>(), 14..200), to_it: bool) {
            let mut bytes = bytes;
            if to_it {
                bytes.iter_mut().zip(MAC.0).for_each(|(octet, mac)| *octet = mac);
            }
            judged(&mut judge(), &bytes);
            judge().rehearse(&bytes, NOW);
            judge().describe(&bytes);
        }
    }
}
