//! The TCP services that are spoken for a sleeper.
#![no_main]

use dormouse_fuzz::{MAC, sleeper, steps};
use dormouse_standin::{Out, Settings, Standin};
use dormouse_types::{Service, ServiceKind};
use dormouse_wire::Frame;
use libfuzzer_sys::fuzz_target;

fn check(out: &Out) {
    for sent in &out.frames {
        assert_eq!(Frame::new(sent).expect("a whole frame").src(), MAC);
    }
}

fuzz_target!(|input: &[u8]| {
    let service = |port, kind| Service { port, kind, wakes: port % 2 == 0 };
    let services = [
        service(22, ServiceKind::Banner("SSH-2.0-asleep\r\n".into())),
        service(80, ServiceKind::WakingPage),
        service(7, ServiceKind::Echo),
        service(0x1616, ServiceKind::Connect),
    ];
    let mut standin = Standin::new(Settings {
        name: "fuzz".parse().expect("a name"),
        mac: MAC,
        addresses: sleeper().addresses.into(),
        services: services.into(),
        mtu: 1500,
        secret: [7; 16],
    });
    let mut end = None;
    for step in steps(input) {
        if let Some(frame) = Frame::new(&step.frame) {
            check(&standin.take(&frame, step.now));
        }
        if step.what % 2 == 1 && standin.deadline().is_some_and(|deadline| deadline <= step.now) {
            check(&standin.due(step.now));
        }
        end = Some(step.now);
    }
    if let Some(now) = end {
        check(&standin.end(now));
        assert_eq!(standin.deadline(), None);
    }
});
