//! What is learned of a machine from its frames, and kept.
#![no_main]

use dormouse_fuzz::{MAC, steps};
use dormouse_wire::{Frame, Persona, Way};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut persona = Persona::default();
    for step in steps(input) {
        let Some(frame) = Frame::new(&step.frame) else { continue };
        let way = if step.what % 2 == 0 { Way::Sent } else { Way::Received };
        let before = persona.clone();
        let changed = persona.learn(&frame, way, MAC, step.now);
        assert!(changed || persona.groups == before.groups, "a change that nobody was told of");
        assert!(persona.groups.len() <= Persona::MAX_GROUPS);
    }
    let kept = serde_json::to_vec(&persona).expect("a persona can be kept");
    assert!(kept.len() < 1 << 20, "{} octets", kept.len());
    assert_eq!(serde_json::from_slice::<Persona>(&kept).expect("and given back"), persona);
});
