//! What wakes a sleeping machine.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A rule that names the frames for which a sleeping machine wakes: one entry of `wake.on`.
///
/// Written as `any-unicast`, `magic`, `tcp:22,80` or `udp:53,5000-5010`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WakeRule {
    /// Any frame sent to the machine's own Ethernet address, link upkeep (ARP, NDP, LLDP, ...) left out.
    AnyUnicast,
    /// A wake-on-LAN magic packet that names the machine.
    Magic,
    /// A TCP segment to one of these ports (1 to 65535; as parsed, ascending without repeats).
    Tcp(Vec<u16>),
    /// A UDP datagram to one of these ports (1 to 65535; as parsed, ascending without repeats).
    Udp(Vec<u16>),
}

/// Why a text is no wake rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WakeRuleError {
    /// The word before the colon is not one of the four, or has ports and takes none.
    #[error(
        "{0:?} is not a wake rule: write any-unicast, magic, tcp:PORTS or udp:PORTS, as tcp:22,80 or udp:5000-5010"
    )]
    Unknown(String),
    /// A port is missing, is no number or is out of range.
    #[error(
        "{port:?} in wake rule {rule:?} is not a port: write numbers from 1 to 65535, separated by commas"
    )]
    Port {
        /// The whole rule.
        rule: String,
        /// The part that is wrong.
        port: String,
    },
    /// A range of ports ends before it begins.
    #[error("{range:?} in wake rule {rule:?} runs backwards: write the lower port first, as 5000-5010")]
    Backwards {
        /// The whole rule.
        rule: String,
        /// The range that is wrong.
        range: String,
    },
}

impl FromStr for WakeRule {
    type Err = WakeRuleError;

    fn from_str(text: &str) -> Result<Self, WakeRuleError> {
        match text.split_once(':') {
            None if text == "any-unicast" => Ok(Self::AnyUnicast),
            None if text == "magic" => Ok(Self::Magic),
            Some(("tcp", list)) => parse_ports(text, list).map(Self::Tcp),
            Some(("udp", list)) => parse_ports(text, list).map(Self::Udp),
            _ => Err(WakeRuleError::Unknown(text.to_string())),
        }
    }
}

/// The ports of `list`, ascending without repeats.
fn parse_ports(rule: &str, list: &str) -> Result<Vec<u16>, WakeRuleError> {
    let mut ports = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (parse_port(rule, first)?, parse_port(rule, last)?),
            None => (parse_port(rule, part)?, parse_port(rule, part)?),
        };
        if first > last {
            return Err(WakeRuleError::Backwards { rule: rule.to_string(), range: part.to_string() });
        }
        ports.extend(first..=last);
        // Kept small at each step, so that many overlapping ranges cannot fill the memory.
        ports.sort_unstable();
        ports.dedup();
    }
    Ok(ports)
}

fn parse_port(rule: &str, text: &str) -> Result<u16, WakeRuleError> {
    // `u16::from_str` also takes a plus sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| WakeRuleError::Port { rule: rule.to_string(), port: text.to_string() })
}

impl fmt::Display for WakeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyUnicast => f.write_str("any-unicast"),
            Self::Magic => f.write_str("magic"),
            Self::Tcp(ports) => f.write_str("tcp:").and_then(|()| write_ports(f, ports)),
            Self::Udp(ports) => f.write_str("udp:").and_then(|()| write_ports(f, ports)),
        }
    }
}

/// Three or more ports in a row are written as a range.
fn write_ports(f: &mut fmt::Formatter<'_>, mut ports: &[u16]) -> fmt::Result {
    let mut comma = "";
    while let [first, ..] = *ports {
        let row = ports.iter().zip(first..=u16::MAX).take_while(|(port, next)| **port == *next).count();
        let taken = if row >= 3 { row } else { 1 };
        let (taken, rest) = ports.split_at(taken);
        match taken {
            [_, .., last] => write!(f, "{comma}{first}-{last}")?,
            _ => write!(f, "{comma}{first}")?,
        }
        (ports, comma) = (rest, ",");
    }
    Ok(())
}

impl Serialize for WakeRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WakeRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    #[test]
    fn reads_the_rules_of_the_manual() {
        assert_eq!("any-unicast".parse(), Ok(WakeRule::AnyUnicast));
        assert_eq!("magic".parse(), Ok(WakeRule::Magic));
        assert_eq!("tcp:22,80".parse(), Ok(WakeRule::Tcp(vec![22, 80])));
        assert_eq!("udp:53".parse(), Ok(WakeRule::Udp(vec![53])));
        assert_eq!("tcp:80, 8000-8002,22,80".parse(), Ok(WakeRule::Tcp(vec![22, 80, 8000, 8001, 8002])));
        assert_eq!("tcp:65535".parse(), Ok(WakeRule::Tcp(vec![65535])));
    }

    #[test]
    fn writes_rows_of_ports_as_ranges() {
        for text in ["tcp:22,80", "tcp:1-65535", "udp:53,67,68,5000-5010", "magic", "any-unicast"] {
            assert_eq!(text.parse::<WakeRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let unknown = |text: &str| WakeRuleError::Unknown(text.into());
        for text in ["", "any", "Magic", "magic:9", "any-unicast:1", "sctp:5", "tcp", "22"] {
            let error = text.parse::<WakeRule>().unwrap_err();
            assert_eq!(error, unknown(text));
            assert!(error.to_string().contains("any-unicast, magic, tcp:PORTS or udp:PORTS"), "{error}");
        }
        for text in
            ["tcp:", "tcp:0", "tcp:65536", "tcp:+22", "tcp:ssh", "tcp:22,", "udp:5-", "udp:-5", "udp:1-2-3"]
        {
            let error = text.parse::<WakeRule>().unwrap_err();
            assert!(matches!(error, WakeRuleError::Port { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains("from 1 to 65535"), "{error}");
        }
        let error = "tcp:90-80".parse::<WakeRule>().unwrap_err();
        assert_eq!(error, WakeRuleError::Backwards { rule: "tcp:90-80".into(), range: "90-80".into() });
    }

    #[test]
    fn is_a_string_in_files() {
        let rules = vec![WakeRule::Tcp(vec![22, 80]), WakeRule::Magic];
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(text, r#"["tcp:22,80","magic"]"#);
        assert_eq!(serde_json::from_str::<Vec<WakeRule>>(&text).unwrap(), rules);
        let error = serde_json::from_str::<WakeRule>(r#""tcp:0""#).unwrap_err().to_string();
        assert!(error.contains("is not a port"), "{error}");
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(ports in prop::collection::btree_set(1u16.., 1..40), tcp: bool) {
            let ports: Vec<u16> = ports.into_iter().collect();
            let rule = if tcp { WakeRule::Tcp(ports) } else { WakeRule::Udp(ports) };
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn reads_rows_that_it_writes(start in 1u16..65000, len in 1u16..500) {
            let rule = WakeRule::Tcp((start..start + len).collect());
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn any_text_is_a_rule_or_an_error(text in "\\PC*", list in "[0-9,+ -]{0,20}") {
            let _ = text.parse::<WakeRule>();
            if let Ok(rule) = format!("udp:{list}").parse::<WakeRule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }
}
