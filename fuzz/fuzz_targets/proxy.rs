//! The stand-in of a sleeper: first the machine runs and is learned from, then it sleeps.
#![no_main]

use dormouse_fuzz::{MAC, sleeper, steps};
use dormouse_wire::{Deed, FlowTable, Frame, Outcome, Persona, Policy, Proxy, Way, summary};
use libfuzzer_sys::fuzz_target;

/// Frames that one call may bring: a report for each group, and a few more.
const MAX_DEEDS: usize = Persona::MAX_GROUPS + 20;

fn check(sent: &[u8]) {
    let frame = Frame::new(sent).expect("a whole frame");
    assert_eq!(frame.src(), MAC, "{}", summary(sent));
    assert_ne!(frame.dst(), MAC, "{}", summary(sent));
    assert!(sent.len() < 10_000);
}

fuzz_target!(|input: &[u8]| {
    let (mut persona, mut flows, mut asleep) = (Persona::default(), FlowTable::default(), None::<Proxy>);
    for step in steps(input) {
        let Some(frame) = Frame::new(&step.frame) else { continue };
        if step.what % 4 < 2 && asleep.is_none() {
            let way = if step.what % 4 == 0 { Way::Sent } else { Way::Received };
            persona.learn(&frame, way, MAC, step.now);
            flows.note(&frame, step.frame.len(), MAC, step.now);
            continue;
        }
        let proxy = asleep.get_or_insert_with(|| {
            persona.flows = flows.established();
            Proxy::new(sleeper(), persona.clone(), Policy::default(), step.now)
        });
        let (by, outcome) = proxy.take(&frame, step.now);
        assert_eq!(by.is_empty(), outcome == Outcome::Pass);
        if let Outcome::Reply(reply) = outcome {
            check(&reply);
        }
        if step.what % 4 == 3 || proxy.deadline().is_some_and(|deadline| deadline <= step.now) {
            let now = proxy.deadline().map_or(step.now, |deadline| deadline.max(step.now));
            let deeds = proxy.due(now);
            assert!(deeds.len() <= MAX_DEEDS);
            for deed in deeds {
                if let Deed::Send(_, frame) = deed {
                    check(&frame);
                }
            }
            assert!(proxy.deadline().is_none_or(|deadline| deadline > now), "a deadline that does not pass");
        }
    }
});
