//! Telling scanners from clients.
#![no_main]

use dormouse_fuzz::steps;
use dormouse_wire::{Frame, ScanLimits, Scanners};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut scanners = Scanners::new(ScanLimits { ports: 3, machines: 3, ..ScanLimits::default() });
    for step in steps(input) {
        if let Some(frame) = Frame::new(&step.frame) {
            scanners.note(&frame, step.now);
        }
    }
});
