//! Whole conversations.

use std::time::Duration;

use dormouse_types::ServiceKind;
use dormouse_wire::Frame;
use proptest::prelude::*;
use smoltcp::socket::tcp::State;

use crate::{
    raw::{Raw, START, service, standin},
    world::{Link, World},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nAccept: text/html\r\n\r\n";

fn kinds() -> Vec<dormouse_types::Service> {
    vec![
        service(7, ServiceKind::Echo),
        service(23, ServiceKind::Banner("web sleeps\r\n".into())),
        service(80, ServiceKind::WakingPage),
        service(443, ServiceKind::Connect),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    let tags = prop::sample::select(vec![&[][..], &[0x81, 0, 0x20, 5], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5]]);
    (any::<u64>(), 0u64..15, 0u64..30, 0u64..50, tags).prop_map(|(seed, lost, doubled, jitter, tags)| Link {
        seed,
        lost,
        doubled,
        jitter,
        tags,
    })
}

/// One conversation at `port`, to the end of all that follows from it.
fn talk(port: u16, say: &[u8], closes_first: bool, v6: bool, link: Link) -> (World, Vec<u8>) {
    let mut world = World::new(&kinds(), v6, link);
    let client = world.connect(port, say, closes_first);
    let mut clients = [client];
    assert!(world.run(&mut clients, |_| false), "it never ends");
    assert_eq!(world.state(&clients[0]), State::Closed);
    assert_eq!(world.standin.deadline(), None, "nothing is kept");
    let [client] = clients;
    (world, client.heard)
}

fn why(world: &World) -> Vec<&str> {
    world.wakes.iter().map(|(_, why)| why.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_gets_the_whole_page_and_wakes_after_it(link in link(), v6: bool, closes_first: bool) {
        let (world, heard) = talk(80, GET, closes_first, v6, link);
        let text = String::from_utf8(heard).unwrap();
        prop_assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("</main>\n"), "{text}");
        prop_assert_eq!(why(&world), ["tcp:80 GET / (waking-page)"]);
    }

    #[test]
    fn echo_gives_back_every_octet(
        link in link(), v6: bool, say in prop::collection::vec(any::<u8>(), 1..8_000),
    ) {
        let (world, heard) = talk(7, &say, true, v6, link);
        prop_assert!(heard == say, "{} of {}", heard.len(), say.len());
        prop_assert_eq!(why(&world), ["tcp:7 (echo)"]);
    }

    #[test]
    fn a_banner_is_said_and_the_connection_closed(link in link(), v6: bool, port in prop::sample::select(vec![23u16, 443])) {
        let (world, heard) = talk(port, b"", false, v6, link);
        let (text, name) = if port == 23 { (&b"web sleeps\r\n"[..], "tcp:23 (banner)") } else { (&b""[..], "tcp:443 (connect)") };
        prop_assert_eq!(&heard[..], text);
        prop_assert_eq!(why(&world), [name]);
    }

    #[test]
    fn when_the_machine_runs_nothing_false_was_said(link in link(), v6: bool, after in 0u64..200) {
        let mut world = World::new(&kinds(), v6, link);
        let mut clients = [world.connect(80, GET, false), world.connect(7, &[7; 9000], false)];
        let at = START + Duration::from_millis(after);
        world.run(&mut clients, |world| world.now >= at);
        world.end(&mut clients);
        let [page, echo] = clients;
        let page = String::from_utf8(page.heard).unwrap();
        prop_assert!("HTTP/1.1 503 Service Unavailable".starts_with(&page) || page.starts_with("HTTP/1.1 503 "));
        prop_assert!(echo.heard.iter().all(|octet| *octet == 7) && echo.heard.len() <= 9000);
    }
}

/// The client's FIN comes before what is missing, and it never says it again.
#[test]
fn a_client_that_forgets_its_end_is_given_up() {
    let link = Link { seed: 16_268_028_506_875_697_502, lost: 8, doubled: 16, jitter: 30, tags: &[] };
    let say = [0; 5841];
    let (_, heard) = talk(7, &say, true, false, link);
    assert!(heard == say, "{}", heard.len());
}

#[test]
fn the_wake_waits_for_the_acknowledgement_of_the_page() {
    let mut world = World::new(&kinds(), false, Link { seed: 7, ..Link::default() });
    let mut clients = [world.connect(80, GET, false)];
    assert!(world.run(&mut clients, |world| !world.wakes.is_empty()));
    let text = String::from_utf8(clients[0].heard.clone()).unwrap();
    assert!(text.ends_with("</main>\n"), "{text}");
    assert!(world.now.since(START) < Duration::from_millis(100), "{:?}", world.now.since(START));
}

#[test]
fn the_wake_comes_a_second_after_the_request_if_nobody_acknowledges() {
    let mut standin = standin(&kinds());
    let mut client = Raw::new(40_000);
    let syn_ack = standin.take(&Frame::new(&client.syn(80)).unwrap(), START).frames;
    client.hear(&syn_ack[0]);
    let out = standin.take(&Frame::new(&client.data(80, GET)).unwrap(), START);
    assert!(out.wake.is_none() && out.taken);
    assert!(out.frames.len() >= 2, "the page is on its way");
    let (wake, now) = loop {
        let now = standin.deadline().unwrap();
        if let Some(wake) = standin.due(now).wake {
            break (wake, now);
        }
    };
    assert_eq!(wake, "tcp:80 GET / (waking-page)");
    assert_eq!(now.since(START), Duration::from_secs(1));
}

#[test]
fn those_who_have_not_been_told_all_are_reset_when_the_machine_runs() {
    let mut world = World::new(&kinds(), false, Link { seed: 3, ..Link::default() });
    let mut clients = [world.connect(80, b"GET / HT", false), world.connect(80, GET, false)];
    assert!(world.run(&mut clients, |world| !world.wakes.is_empty()));
    let told = clients[1].heard.clone();
    world.end(&mut clients);
    assert_eq!(world.resets, [40_001]);
    assert!(told.ends_with(b"</main>\n"));
}

#[test]
fn more_requests_get_the_page_while_the_machine_wakes() {
    let mut world = World::new(&kinds(), false, Link { seed: 5, ..Link::default() });
    for _ in 0..40 {
        let mut clients = [world.connect(80, GET, false)];
        let told = world.wakes.len();
        assert!(world.run(&mut clients, |world| world.wakes.len() > told));
        assert!(clients[0].heard.ends_with(b"</main>\n"));
    }
}

#[test]
fn who_says_nothing_or_half_a_thing_is_told_so_in_time() {
    for (say, status, wakes) in [
        (&b""[..], "", 0),
        (b"GET / HTTP/1.1\r\nHost:", "HTTP/1.1 408 ", 1),
        (b"\x16\x03\x01\x02\x00", "HTTP/1.1 400 ", 1),
        (&[b'A'; 20_000], "HTTP/1.1 431 ", 1),
    ] {
        let (world, heard) = talk(80, say, false, true, Link { seed: 5, ..Link::default() });
        let text = String::from_utf8(heard).unwrap();
        assert!(text.starts_with(status) && text.is_empty() == status.is_empty(), "{say:?}: {text}");
        assert_eq!(world.wakes.len(), wakes, "{say:?}");
    }
}

#[test]
fn a_service_that_does_not_wake_does_not() {
    let mut services = kinds();
    services.iter_mut().for_each(|service| service.wakes = false);
    let mut world = World::new(&services, false, Link { seed: 5, ..Link::default() });
    let mut clients =
        [world.connect(80, GET, false), world.connect(443, b"", false), world.connect(7, b"x", true)];
    assert!(world.run(&mut clients, |_| false));
    assert!(clients[0].heard.starts_with(b"HTTP/1.1 503 ") && clients[2].heard == b"x");
    assert_eq!(world.wakes, []);
}
