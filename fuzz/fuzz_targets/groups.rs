//! IGMP and MLD, from queriers and from the machine.
#![no_main]

use dormouse_fuzz::live_behind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| live_behind(input, &[6, 7, 8, 9]));
