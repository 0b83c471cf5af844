//! Frames put together from what a user describes.
#![no_main]

use dormouse_fuzz::sleeper;
use dormouse_wire::{Frame, frame_from_text, summary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(bytes) = frame_from_text(text, &sleeper()) {
        assert!(Frame::new(&bytes).is_some(), "{text:?}: {}", summary(&bytes));
    }
});
