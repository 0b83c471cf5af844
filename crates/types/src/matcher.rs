//! Which frames are meant: the common part of wake rules, ignore lists and responders.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Ports, PortsError, text};

/// Frames that a rule names, by what they carry and by who sent them.
///
/// Written as `WHAT`, or `WHAT from NET[,NET...]`: `tcp:22,80 from 10.0.0.0/8,fd00::/8`. A single
/// address may stand for a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// What the frame carries.
    pub what: What,
    /// The networks of the source addresses; empty means any. A frame without an IP source (ARP
    /// has one: the sender's; LLDP has not) matches only where this is empty.
    pub from: Vec<IpNet>,
}

/// What a frame carries. In a wake rule, the words for IP protocols name only frames to the machine's
/// own Ethernet address; elsewhere, as in `ignore`, also those to a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// `any-unicast`: sent to the machine's own Ethernet address, link upkeep (ARP, NDP, LLDP, ...)
    /// and the closing of a TCP connection (FIN, RST) left out.
    AnyUnicast,
    /// `magic`: a wake-on-LAN magic packet that names the machine.
    Magic,
    /// `established`: data on a TCP connection that the machine had when it fell asleep.
    Established,
    /// `icmp`: ICMP or ICMPv6, neighbour discovery left out.
    Icmp,
    /// `tcp:PORTS` or `tcp`: a TCP segment to one of these ports. (Bare FIN and RST never wake.)
    Tcp(Ports),
    /// `udp:PORTS` or `udp`.
    Udp(Ports),
    /// `sctp:PORTS` or `sctp`.
    Sctp(Ports),
    /// `ip:NUMBER`: any other protocol over IPv4 or IPv6, by its number (IANA), as `ip:47`. Never that
    /// of a protocol with a word of its own.
    Ip(u8),
    /// `ethertype:0xNNNN`: a frame of this EtherType, to the machine or to a group.
    EtherType(u16),
    /// `any`: every frame, to the machine or to a group. Not allowed in `wake.on`.
    Any,
}

/// Why a text does not name frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// The word before the colon is not known, or has a number and takes none.
    #[error(
        "{0:?} names no frames: write any-unicast, magic, established, icmp, tcp, udp or sctp (each also \
         with ports, as tcp:22,80 or udp:5000-5010), ip:47 or ethertype:0x88b8"
    )]
    Unknown(String),
    /// The ports are wrong.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// The number of a protocol is wrong.
    #[error("{0:?} is not the number of an IP protocol: write one from 0 to 255, as ip:47")]
    Protocol(String),
    /// The protocol has a word of its own.
    #[error("{what:?} has a word of its own: write {word}")]
    HasWord {
        /// As written.
        what: String,
        /// The word.
        word: &'static str,
    },
    /// The number of an EtherType is wrong.
    #[error("{0:?} is not an EtherType: write one from 0x0600 to 0xffff, as ethertype:0x88b8")]
    EtherType(String),
    /// What stands after `from` is no network.
    #[error(
        "{0:?} is not a network: write an address or a network after from, several with commas, as 10.0.0.0/8,fd00::/8"
    )]
    Net(String),
    /// A network has bits set beyond its prefix.
    #[error("{net} has bits beyond its prefix: write {whole} for the network, {address} for the one address")]
    NetBits {
        /// As written.
        net: IpNet,
        /// The network.
        whole: IpNet,
        /// The address.
        address: IpAddr,
    },
}

/// The protocols that have a word of their own (IANA numbers).
const WORDS: [(u8, &str); 5] = [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmp"), (132, "sctp")];

impl Matcher {
    /// Frames that carry `what`, from anybody.
    #[must_use]
    pub const fn of(what: What) -> Self {
        Self { what, from: Vec::new() }
    }

    /// Does the source of a frame fit, as far as networks are named?
    #[must_use]
    pub fn is_from(&self, source: Option<IpAddr>) -> bool {
        self.from.is_empty() || source.is_some_and(|source| self.from.iter().any(|net| net.contains(&source)))
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        let (what, from) = clause(text, "from");
        let from = from.map_or(Ok(Vec::new()), |nets| nets.split(',').map(net).collect())?;
        Ok(Self { what: what.parse()?, from })
    }
}

/// Splits `text` at the word `word`, which stands alone, into what is before it and after it.
pub(crate) fn clause<'t>(text: &'t str, word: &str) -> (&'t str, Option<&'t str>) {
    let is_edge = |part: &str, edge: Option<char>| part.is_empty() || edge.is_some_and(char::is_whitespace);
    let found = text.match_indices(word).find_map(|(at, _)| {
        let (before, after) = (text.get(..at)?, text.get(at + word.len()..)?);
        let alone = is_edge(before, before.chars().next_back()) && is_edge(after, after.chars().next());
        alone.then_some((before, after))
    });
    found.map_or((text.trim(), None), |(before, after)| (before.trim(), Some(after.trim())))
}

fn net(text: &str) -> Result<IpNet, MatcherError> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let net: IpNet = text.parse().map_err(|_| MatcherError::Net(text.to_string()))?;
    match net.trunc() {
        whole if whole == net => Ok(net),
        whole => Err(MatcherError::NetBits { net, whole, address: net.addr() }),
    }
}

impl FromStr for What {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        match text.split_once(':') {
            None => match text {
                "any-unicast" => Ok(Self::AnyUnicast),
                "magic" => Ok(Self::Magic),
                "established" => Ok(Self::Established),
                "icmp" => Ok(Self::Icmp),
                "tcp" => Ok(Self::Tcp(Ports::ALL)),
                "udp" => Ok(Self::Udp(Ports::ALL)),
                "sctp" => Ok(Self::Sctp(Ports::ALL)),
                "any" => Ok(Self::Any),
                _ => Err(MatcherError::Unknown(text.to_string())),
            },
            Some(("tcp", list)) => Ok(Self::Tcp(list.parse()?)),
            Some(("udp", list)) => Ok(Self::Udp(list.parse()?)),
            Some(("sctp", list)) => Ok(Self::Sctp(list.parse()?)),
            Some(("ip", number)) => protocol(text, number),
            Some(("ethertype", number)) => ethertype(text, number),
            Some(_) => Err(MatcherError::Unknown(text.to_string())),
        }
    }
}

fn protocol(what: &str, number: &str) -> Result<What, MatcherError> {
    let number = text::number(number).ok_or_else(|| MatcherError::Protocol(what.to_string()))?;
    match WORDS.into_iter().find(|(named, _)| *named == number) {
        None => Ok(What::Ip(number)),
        Some((_, word)) => Err(MatcherError::HasWord { what: what.to_string(), word }),
    }
}

fn ethertype(what: &str, number: &str) -> Result<What, MatcherError> {
    let digits = number.strip_prefix("0x").filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    // Less is the length of an IEEE 802.2 frame.
    let number = number.filter(|number| *number >= 0x0600);
    number.map(What::EtherType).ok_or_else(|| MatcherError::EtherType(what.to_string()))
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        for (i, net) in self.from.iter().enumerate() {
            f.write_str(if i == 0 { " from " } else { "," })?;
            if net.prefix_len() == net.max_prefix_len() { net.addr().fmt(f) } else { net.fmt(f) }?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, ports) = match self {
            Self::AnyUnicast => return f.write_str("any-unicast"),
            Self::Magic => return f.write_str("magic"),
            Self::Established => return f.write_str("established"),
            Self::Icmp => return f.write_str("icmp"),
            Self::Ip(number) => return write!(f, "ip:{number}"),
            Self::EtherType(number) => return write!(f, "ethertype:{number:#06x}"),
            Self::Any => return f.write_str("any"),
            Self::Tcp(ports) => ("tcp", ports),
            Self::Udp(ports) => ("udp", ports),
            Self::Sctp(ports) => ("sctp", ports),
        };
        f.write_str(word)?;
        if ports.is_all() { Ok(()) } else { write!(f, ":{ports}") }
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text::deserialize(from)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Matcher {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_frames_carry() {
        for (text, what) in [
            ("any-unicast", What::AnyUnicast),
            ("magic", What::Magic),
            ("established", What::Established),
            ("icmp", What::Icmp),
            ("any", What::Any),
            ("tcp", What::Tcp(Ports::ALL)),
            ("tcp:22,80", What::Tcp([22, 80].into_iter().collect())),
            ("udp:5000-5002", What::Udp([5000, 5001, 5002].into_iter().collect())),
            ("sctp:36412", What::Sctp([36412].into_iter().collect())),
            ("ip:47", What::Ip(47)),
            ("ethertype:0x88b8", What::EtherType(0x88b8)),
        ] {
            assert_eq!(read(text), Matcher::of(what), "{text}");
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn reads_networks_and_addresses() {
        let matcher = read("tcp:22, 80  from 10.0.0.0/8, fd00::/8,192.0.2.9");
        assert_eq!(matcher.to_string(), "tcp:22,80 from 10.0.0.0/8,fd00::/8,192.0.2.9");
        let from = |address: &str| matcher.is_from(Some(address.parse().unwrap()));
        assert!(from("10.255.0.1") && from("fd12::1") && from("192.0.2.9"));
        assert!(!from("192.0.2.8") && !from("fe80::1") && !matcher.is_from(None));
        assert!(read("tcp").is_from(None));
    }

    #[test]
    fn errors_say_what_is_allowed() {
        for (text, parts) in [
            ("", ["names no frames", "any-unicast"]),
            ("Magic", ["\"Magic\"", "magic"]),
            ("magic:9", ["\"magic:9\"", "tcp:22,80"]),
            ("22", ["\"22\"", "ethertype:0x88b8"]),
            ("tcp:", ["\"\" is not a port", "from 1 to 65535"]),
            ("tcp:22 80", ["\"22 80\"", "separated by commas"]),
            ("udp:9-8", ["\"9-8\"", "lower port first"]),
            ("ip:256", ["ip:256", "0 to 255"]),
            ("ip:+4", ["ip:+4", "0 to 255"]),
            ("ip:6", ["ip:6", "write tcp"]),
            ("ethertype:0x05ff", ["0x05ff", "0x0600 to 0xffff"]),
            ("ethertype:88b8", ["88b8", "as ethertype:0x88b8"]),
            ("tcp from", ["\"\"", "an address or a network after from"]),
            ("tcp from ten", ["\"ten\"", "10.0.0.0/8"]),
            ("tcp from 10.0.0.0/33", ["10.0.0.0/33", "not a network"]),
            ("tcp from 10.0.0.9/8", ["10.0.0.0/8", "10.0.0.9 for the one address"]),
            ("tcp from 10.0.0.9 from 10.0.0.8", ["from 10.0.0.8", "several with commas"]),
        ] {
            let error = text.parse::<Matcher>().unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text:?}: {error:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn is_a_text_in_files() {
        let text = r#"["udp:53 from 10.0.0.9","any"]"#;
        let matchers: Vec<Matcher> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&matchers).unwrap(), text);
    }

    pub(crate) fn any_matcher() -> impl Strategy<Value = Matcher> {
        let ports =
            || prop::collection::vec(any::<u16>(), 0..8).prop_map(|p| p.into_iter().collect::<Ports>());
        let has_word = |number: &u8| WORDS.iter().any(|(named, _)| named == number);
        let what = prop_oneof![
            Just(What::AnyUnicast),
            Just(What::Magic),
            Just(What::Established),
            Just(What::Icmp),
            ports().prop_map(What::Tcp),
            ports().prop_map(What::Udp),
            ports().prop_map(What::Sctp),
            any::<u8>().prop_filter("has a word", move |n| !has_word(n)).prop_map(What::Ip),
            (0x0600u16..).prop_map(What::EtherType),
        ];
        let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, len)| IpNet::new(a.into(), len));
        let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(a, len)| IpNet::new(a.into(), len));
        let net = prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc());
        (what, prop::collection::vec(net, 0..4)).prop_map(|(what, from)| Matcher { what, from })
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(matcher in any_matcher()) {
            prop_assert_eq!(matcher.to_string().parse(), Ok(matcher));
        }

        #[test]
        fn any_text_is_a_matcher_or_an_error(text in "\\PC*", like in "(tcp|udp|ip|any|ethertype)(:[0-9x,-]{0,8})?( from [0-9a-f.:/, ]{0,20})?") {
            for text in [text, like] {
                if let Ok(matcher) = text.parse::<Matcher>() {
                    prop_assert_eq!(matcher.to_string().parse(), Ok(matcher));
                }
            }
        }
    }
}
