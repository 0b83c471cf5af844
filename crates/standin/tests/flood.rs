//! Memory under a flood of SYNs. Alone in its program: it counts all that is allocated.
#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "standin/raw.rs"]
mod raw;

use std::alloc::System;

use cap::Cap;
use dormouse_standin::MAX_HALF_OPEN;

use raw::{Raw, START, settle, take, web};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

fn sender(number: u32) -> Raw {
    let [_, b, c, d] = number.to_be_bytes();
    Raw { source: [10, 10 + b, c, d], ..Raw::new(1024) }
}

#[test]
fn a_flood_of_syns_is_bounded_and_leaves_nothing() {
    let start = MEMORY.allocated();
    let mut standin = web();
    let before = MEMORY.allocated();
    let mut most = 0;
    for number in 0..20_000 {
        let out = take(&mut standin, &sender(number).syn(80), START);
        assert!(out.taken && out.frames.len() == 1 && out.wake.is_none());
        most = most.max(MEMORY.allocated().saturating_sub(before));
    }
    println!("at most {most} octets");
    assert!(most < MAX_HALF_OPEN * 16_384 + 32_768, "{most} octets");
    // In the midst of it, someone who answers is served.
    let mut raw = Raw::new(50_000);
    let out = take(&mut standin, &raw.syn(80), START);
    raw.hear(&out.frames[0]);
    for number in 0..u32::try_from(MAX_HALF_OPEN - 1).unwrap() {
        take(&mut standin, &sender(100_000 + number).syn(80), START);
    }
    let out = take(&mut standin, &raw.data(80, b"GET / HTTP/1.1\r\n\r\n"), START);
    assert!(out.frames.iter().any(|frame| frame.windows(12).any(|part| part == b"HTTP/1.1 503")));
    drop(out);
    settle(&mut standin);
    assert_eq!(standin.deadline(), None);
    let after = MEMORY.allocated();
    drop(standin);
    assert_eq!(after - MEMORY.allocated(), before - start, "as much as before the first connection");
}
