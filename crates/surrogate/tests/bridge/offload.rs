//! Frames of local clients: unsegmented, with partial checksums.

use std::net::UdpSocket;

use dormouse_surrogate::Reason;

use crate::{
    frames::{checksum, number},
    lab::{Guest, LIMITS, in_namespace, network, run, surrogate, woken},
};

/// Octets of each datagram.
const SIZE: usize = 100;
/// Datagrams in one send.
const AT_ONCE: u32 = 20;

fn payload(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let datagram = |number: u32| {
        let mut datagram = number.to_be_bytes().to_vec();
        datagram.resize(SIZE, 0x5a);
        datagram
    };
    numbers.flat_map(datagram).collect()
}

fn has_good_checksum(frame: &[u8]) -> bool {
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    let length = udp[4..6].to_vec();
    let pseudo = [&ip[12..20], &[0, 17], &length, udp].concat();
    udp[6..8] != [0, 0] && checksum(&pseudo) == 0 && checksum(ip) == 0
}

#[test]
fn segments_and_checksums_are_made_good_on_the_way() {
    in_namespace(|| async {
        let net = network().await;
        run("ip address add 10.9.0.1/24 dev c1");
        let (surrogate, mut notices) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;

        // A socket of the kernel: it asks for the address first, and is answered.
        let client = UdpSocket::bind("10.9.0.1:7777").unwrap();
        client.connect("10.9.0.2:7777").unwrap();
        client.send(&payload(0..1)).unwrap();
        woken(&mut notices).await;
        nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::UdpGsoSegment, &(SIZE as i32))
            .unwrap();
        client.send(&payload(1..1 + AT_ONCE)).unwrap();
        client.send(&payload(1 + AT_ONCE..1 + 2 * AT_ONCE)).unwrap();
        let replay = guest.wake(&surrogate).await;
        let last = 1 + 3 * AT_ONCE;
        client.send(&payload(1 + 2 * AT_ONCE..last)).unwrap();

        let got = guest.numbers_up_to(last - 1).await;
        assert_eq!(got, (0..last).collect::<Vec<_>>());
        assert_eq!(replay.frames, 3, "the segments were held as they came: {replay:?}");
        assert_eq!(replay.dropped.of(Reason::Refused), 0);
        let frames = guest.frames();
        assert!(frames.iter().filter(|frame| number(frame).is_some()).all(|frame| has_good_checksum(frame)));
    });
}
