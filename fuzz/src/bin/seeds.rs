//! Writes what the fuzzer begins with: `seeds DIRECTORY` makes a directory for each target.

use std::{env, error::Error, fs, path::Path};

use dormouse_fuzz::encode;
// It is built with the fuzzer's instrumentation, whose other half is in there.
use libfuzzer_sys as _;

#[allow(dead_code, unused_imports)]
#[path = "../../../crates/wire/tests/wire/packets.rs"]
mod packets;

/// Texts of rules and matchers.
const TEXTS: [&str; 8] = [
    "any-unicast",
    "magic",
    "established",
    "tcp:22,80-90 from 10.0.0.0/8,fd00::/8",
    "udp:53 rate 3/10s",
    "ip:47",
    "ethertype:0x88b5",
    "icmp from 192.0.2.1 rate 100/1m",
];

/// Descriptions of frames.
const FRAMES: [&str; 5] =
    ["tcp 10.0.0.9 > :22", "tcp 10.0.0.9 > 10.9.0.2:80 data", "udp fd77::9 > :53", "icmp 10.0.0.9", "magic"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = env::args().nth(1).ok_or("usage: seeds DIRECTORY")?;
    let write = |target: &str, name: &str, octets: &[u8]| {
        let directory = Path::new(&root).join(target);
        fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(name), octets))
    };
    let all: Vec<_> = packets::ALL.iter().map(|packet| (packet.name, packet.bytes())).collect();
    for (name, bytes) in &all {
        write("frame", name, bytes)?;
        for target in ["flows", "persona", "proxy", "scanners", "standin"] {
            for what in 0..4 {
                write(target, &format!("{name}-{what}"), &encode(what, 30, bytes))?;
            }
        }
    }
    let conversation: Vec<_> = all.iter().flat_map(|(_, bytes)| encode(2, 30, bytes)).collect();
    for target in ["flows", "persona", "proxy", "scanners", "standin"] {
        write(target, "all", &conversation)?;
        for shape in 0..dormouse_fuzz::SHAPES {
            write(
                target,
                &format!("shape-{shape}"),
                &encode(shape % 4, 30, &[&[shape][..], &[0; 64]].concat()),
            )?;
        }
    }
    // Without their headers, which these targets put in front: IPv4 without options, and IPv6.
    for (name, bytes) in &all {
        let payload = match bytes.get(12..14) {
            Some([0x08, 0x00]) => bytes.get(34..),
            Some([0x86, 0xdd]) => bytes.get(54..),
            _ => None,
        };
        for target in ["tcp", "icmp", "groups", "dhcp", "mdns", "llmnr", "netbios"] {
            let is_udp = matches!(target, "dhcp" | "mdns" | "llmnr" | "netbios");
            let Some(octets) = payload.and_then(|octets| octets.get(if is_udp { 8 } else { 0 }..)) else {
                continue;
            };
            for what in 0..16 {
                write(target, &format!("{name}-{what}"), &encode(what, 30, octets))?;
            }
        }
    }
    for (number, text) in TEXTS.iter().enumerate() {
        write("rules", &format!("text-{number}"), text.as_bytes())?;
    }
    for (number, text) in FRAMES.iter().enumerate() {
        write("synth", &format!("text-{number}"), text.as_bytes())?;
    }
    Ok(())
}
