//! What a frame is to a sleeper, by the rules of the wire.

use dormouse_types::{Timestamp, WakeRule};
use dormouse_wire::{
    ArpOperation, Frame, Identity, Network, Outcome, Persona, Policy, Proxy, Rules, Verdict, summary,
};

use crate::presence::{Judge, Judgement};

/// Judges by the proxy's responders and the machine's wake rules.
pub(crate) struct WireJudge {
    proxy: Proxy,
    rules: Rules,
}

impl WireJudge {
    /// Judges for the interface `who` of a machine with these wake rules.
    #[must_use]
    pub(crate) fn new(who: Identity, rules: Vec<WakeRule>) -> Self {
        let proxy = Proxy::new(who, Persona::default(), Policy::default(), Timestamp::default());
        Self { proxy, rules: Rules::new(rules.into(), [].into()) }
    }
}

impl Judge for WireJudge {
    fn judge(&mut self, ethernet: &[u8], now: Timestamp) -> Judgement {
        let Some(frame) = Frame::new(ethernet) else { return Judgement::Ignore };
        match self.proxy.take(&frame, now) {
            (by, Outcome::Reply(frame)) => return Judgement::Answer { by, frame },
            (_, Outcome::Consume(_)) => return Judgement::Ignore,
            (_, Outcome::Wake(_)) => return Judgement::Wake,
            (_, Outcome::Pass) => {}
        }
        let who = self.proxy.identity();
        match self.rules.judge(&frame, who, self.proxy.persona(), now) {
            Verdict::Wake(_) => Judgement::Wake,
            Verdict::Ignore(_) => Judgement::Ignore,
            Verdict::NotYet { .. } | Verdict::Unnamed if asks_for_another(&frame, who) => Judgement::Ignore,
            Verdict::NotYet { .. } | Verdict::Unnamed => Judgement::Other,
        }
    }

    fn describe(&self, ethernet: &[u8]) -> String {
        summary(ethernet)
    }
}

/// Is it a broadcast ARP request for an address that is not the sleeper's?
///
/// Announcements are not: a guest updates its table by them. Nothing is known of a sleeper
/// without addresses.
fn asks_for_another(frame: &Frame<'_>, who: &Identity) -> bool {
    match frame.network() {
        Network::Arp(arp) => {
            let request = arp.operation == ArpOperation::Request && !arp.is_announcement();
            frame.is_group() && request && !who.addresses.is_empty() && !who.has(arp.target)
        }
        _ => false,
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
    use dormouse_types::{MacAddr, What};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1);
    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    fn judge() -> WireJudge {
        let who = Identity { mac: MAC, addresses: vec![[10, 9, 0, 2].into()] };
        WireJudge::new(who, vec![WakeRule::of(What::AnyUnicast)])
    }

    fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    #[test]
    fn address_requests_are_answered_or_ignored_and_announcements_kept() {
        let for_it = judge().judge(&arp_request([10, 9, 0, 1], [10, 9, 0, 2]), NOW);
        assert!(matches!(for_it, Judgement::Answer { .. }), "{for_it:?}");
        assert_eq!(judge().judge(&arp_request([10, 9, 0, 1], [10, 9, 0, 3]), NOW), Judgement::Ignore);
        assert_eq!(judge().judge(&arp_request([10, 9, 0, 1], [10, 9, 0, 1]), NOW), Judgement::Other);
    }

    #[test]
    fn unicast_wakes() {
        let mut frame = MAC.0.to_vec();
        frame.extend([2, 0, 0, 0, 0, 1, 0x12, 0x34, 1, 2, 3]);
        assert_eq!(judge().judge(&frame, NOW), Judgement::Wake);
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200), to_it: bool) {
            let mut bytes = bytes;
            if to_it {
                bytes.iter_mut().zip(MAC.0).for_each(|(octet, mac)| *octet = mac);
            }
            judge().judge(&bytes, NOW);
            judge().describe(&bytes);
        }
    }
}
