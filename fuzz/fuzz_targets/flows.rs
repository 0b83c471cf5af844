//! Connections of a machine, followed by any frames.
#![no_main]

use dormouse_fuzz::{MAC, steps};
use dormouse_wire::{FlowTable, Frame, Persona};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut table = FlowTable::default();
    for step in steps(input) {
        let Some(frame) = Frame::new(&step.frame) else { continue };
        // A capture of headers now and then.
        table.note(&frame, step.frame.len() + usize::from(step.what) * 256, MAC, step.now);
        let flows = table.established();
        assert!(flows.len() <= Persona::MAX_FLOWS);
        assert!(flows.is_sorted_by(|one, other| one.heard >= other.heard));
    }
});
