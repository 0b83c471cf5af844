//! LLMNR.
#![no_main]

use dormouse_fuzz::live_behind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| live_behind(input, &[18, 19]));
