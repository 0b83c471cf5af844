//! The words of wake rules and ignore lists, and what they say of frames.
#![no_main]

use dormouse_fuzz::{sleeper, steps};
use dormouse_types::{Matcher, WakeRule};
use dormouse_wire::{Frame, Persona, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|octet| *octet == 0).unwrap_or(input.len());
    let (text, rest) = input.split_at(end);
    let Ok(text) = str::from_utf8(text) else { return };
    let wake: Vec<WakeRule> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let ignore: Vec<Matcher> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for rule in &wake {
        assert_eq!(rule.to_string().parse::<WakeRule>().as_ref(), Ok(rule));
    }
    for matcher in &ignore {
        assert_eq!(matcher.to_string().parse::<Matcher>().as_ref(), Ok(matcher));
    }
    let mut with_ignore = Rules::new(wake.clone().into(), ignore.into());
    let mut rules = Rules::new(wake.into(), [].into());
    for step in steps(rest) {
        let Some(frame) = Frame::new(&step.frame) else { continue };
        rules.judge(&frame, &sleeper(), &Persona::default(), step.now);
        with_ignore.judge(&frame, &sleeper(), &Persona::default(), step.now);
    }
});
