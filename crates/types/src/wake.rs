//! What wakes a sleeping machine.

use alloc::string::{String, ToString};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Matcher, MatcherError, Rate, RateError, What, matcher::clause, text};

/// A rule that names the frames for which a sleeping machine wakes: one entry of `wake.on`.
///
/// Written as `WHAT [from NET,NET] [rate N/TIME]`: `tcp:22,80`, `any-unicast from 10.0.0.0/8`,
/// `udp:5000-5010 rate 3/10s`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WakeRule {
    /// The frames.
    pub matcher: Matcher,
    /// How many of them it takes; `None`: the first one wakes.
    pub rate: Option<Rate>,
}

/// Why a text is no wake rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WakeRuleError {
    /// It does not name frames.
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    /// It names all frames.
    #[error("{0:?} would wake at every broadcast: write any-unicast")]
    Any(String),
    /// What stands after `rate` is no rate.
    #[error(transparent)]
    Rate(#[from] RateError),
}

impl WakeRule {
    /// Wakes at the first frame that carries `what`, from anybody.
    #[must_use]
    pub const fn of(what: What) -> Self {
        Self { matcher: Matcher::of(what), rate: None }
    }
}

impl FromStr for WakeRule {
    type Err = WakeRuleError;

    fn from_str(text: &str) -> Result<Self, WakeRuleError> {
        let (matcher, rate) = clause(text, "rate");
        let matcher: Matcher = matcher.parse()?;
        if matcher.what == What::Any {
            return Err(WakeRuleError::Any(text.to_string()));
        }
        Ok(Self { matcher, rate: rate.map(str::parse).transpose()? })
    }
}

impl fmt::Display for WakeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matcher.fmt(f)?;
        self.rate.map_or(Ok(()), |rate| write!(f, " rate {rate}"))
    }
}

impl Serialize for WakeRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WakeRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ports, matcher::tests::any_matcher};
    use alloc::{vec, vec::Vec};
    use core::time::Duration;
    use proptest::prelude::*;

    fn tcp(ports: &[u16]) -> WakeRule {
        WakeRule::of(What::Tcp(ports.iter().copied().collect()))
    }

    #[test]
    fn reads_the_rules_of_the_manual() {
        assert_eq!("any-unicast".parse(), Ok(WakeRule::of(What::AnyUnicast)));
        assert_eq!("magic".parse(), Ok(WakeRule::of(What::Magic)));
        assert_eq!("tcp:22,80".parse(), Ok(tcp(&[22, 80])));
        assert_eq!("udp:53".parse(), Ok(WakeRule::of(What::Udp([53].into_iter().collect()))));
        assert_eq!("tcp:80, 8000-8002,22,80".parse(), Ok(tcp(&[22, 80, 8000, 8001, 8002])));
        assert_eq!("tcp".parse(), Ok(WakeRule::of(What::Tcp(Ports::ALL))));
        for text in [
            "tcp:22,80",
            "tcp:1-65535",
            "udp:53,67,68,5000-5010",
            "any-unicast from 10.0.0.0/8",
            "udp:5000-5010 rate 3/10s",
            "tcp:22 from 10.0.0.0/8,fd00::/8 rate 2/3s",
        ] {
            assert_eq!(text.parse::<WakeRule>().unwrap().to_string(), text);
        }
        let rule: WakeRule = "tcp:22 rate 2/3s".parse().unwrap();
        assert_eq!(rule.rate, Rate::new(2, Duration::from_secs(3)));
    }

    #[test]
    fn errors_say_what_is_allowed() {
        for (text, parts) in [
            ("", ["\"\"", "any-unicast"]),
            ("any", ["every broadcast", "write any-unicast"]),
            ("any from 10.0.0.0/8", ["every broadcast", "write any-unicast"]),
            ("rate 3/10s", ["\"\"", "names no frames"]),
            ("tcp:22 rate", ["\"\"", "as 3/10s"]),
            ("tcp:22 rate 3", ["\"3\"", "as 3/10s"]),
            ("tcp:22 rate 3/10s from 10.0.0.9", ["\"3/10s from 10.0.0.9\"", "is not a rate"]),
            ("tcp:22 form 10.0.0.9", ["\"22 form 10.0.0.9\"", "separated by commas"]),
        ] {
            let error = text.parse::<WakeRule>().unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text:?}: {error:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn is_a_string_in_files() {
        let rules = vec![tcp(&[22, 80]), WakeRule::of(What::Magic)];
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(text, r#"["tcp:22,80","magic"]"#);
        assert_eq!(serde_json::from_str::<Vec<WakeRule>>(&text).unwrap(), rules);
        let error = serde_json::from_str::<WakeRule>(r#""tcp:0""#).unwrap_err().to_string();
        assert!(error.contains("is not a port"), "{error}");
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(matcher in any_matcher(), rate in prop::option::of((1..=1000u16, 1..=86_400_000u64))) {
            let rate = rate.and_then(|(count, millis)| Rate::new(count, Duration::from_millis(millis)));
            let rule = WakeRule { matcher, rate };
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn any_text_is_a_rule_or_an_error(text in "\\PC*") {
            if let Ok(rule) = text.parse::<WakeRule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }
}
