//! The stand-in of a sleeper, with frames of all kinds.
#![no_main]

use dormouse_fuzz::{live, steps};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| live(steps(input)));
