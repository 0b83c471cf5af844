//! `sleep.policy`: by which policy machines sleep whose files name none.

use std::fmt;

use dormouse_machine::policy::{Kind, Settings};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// A policy by its name, or in a table `{ name = "predictive", wake_cost = "1h" }` with parameters, which are
/// those of a machine's file and of `dormouse simulate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsualPolicy {
    settings: Settings,
}

impl UsualPolicy {
    /// The policy, and its parameters.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

struct Reader;

impl<'de> de::Visitor<'de> for Reader {
    type Value = UsualPolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a policy, or a table as { name = \"predictive\", wake_cost = \"1h\" }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<UsualPolicy, E> {
        let kind = kind("sleep.policy", name).map_err(E::custom)?;
        Ok(UsualPolicy { settings: Settings { kind, ..Settings::default() } })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<UsualPolicy, A::Error> {
        let mut name = None;
        let mut given = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, toml::Value>()? {
            let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
            if key == "name" { name = Some(text) } else { given.push((key, text)) }
        }
        let name = name.ok_or_else(|| {
            de::Error::custom("sleep.policy.name is missing; write for example name = \"predictive\"")
        })?;
        let kind = kind("sleep.policy.name", &name).map_err(de::Error::custom)?;
        let mut settings = Settings { kind, ..Settings::default() };
        for (key, text) in given {
            let is_known = Settings::KEYS.contains(&&*key);
            if let Some(why) = kind.refuses(&key).filter(|_| is_known) {
                return Err(de::Error::custom(format!("sleep.policy.{key} = {text:?}: {why}")));
            }
            settings.set(&key, &text).map_err(|why| de::Error::custom(format!("sleep.policy.{why}")))?;
        }
        Ok(UsualPolicy { settings })
    }
}

fn kind(key: &str, name: &str) -> Result<Kind, String> {
    name.parse().map_err(|fix| format!("{key} = {name:?}: {fix}"))
}

impl<'de> Deserialize<'de> for UsualPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for UsualPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Settings { kind, idle_most, wake_cost, lead, idle_least, .. } = self.settings;
        if self.settings == (Settings { kind, ..Settings::default() }) {
            return kind.serialize(serializer);
        }
        let all =
            [("idle_most", idle_most), ("wake_cost", wake_cost), ("lead", lead), ("idle_least", idle_least)];
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &kind)?;
        for (key, span) in all.into_iter().filter(|(key, _)| kind.keys().contains(key)) {
            map.serialize_entry(key, &humantime::format_duration(span).to_string())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        policy: UsualPolicy,
    }

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str::<File>(text).map(|file| file.policy.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn every_parameter_but_idle_after_can_be_set() {
        for kind in Kind::ALL {
            assert_eq!(read(&format!("policy = \"{kind}\"")).unwrap().kind, kind);
            for key in kind.keys().iter().filter(|key| **key != "idle_after") {
                let mut expected = Settings { kind, ..Settings::default() };
                expected.set(key, "90s").unwrap();
                let text = format!("policy = {{ {key} = \"90s\", name = \"{kind}\" }}");
                assert_eq!(read(&text), Ok(expected));
            }
        }
    }

    #[test]
    fn errors_name_the_line_the_key_and_what_is_allowed() {
        for (text, expected) in [
            ("\"lazy\"", "sleep.policy = \"lazy\": must be \"fixed\""),
            ("5", "expected the name of a policy, or a table"),
            ("{ lead = \"1m\" }", "sleep.policy.name is missing"),
            ("{ name = \"lazy\" }", "sleep.policy.name = \"lazy\": must be"),
            (
                "{ name = \"fixed\", lead = \"1m\" }",
                "sleep.policy.lead = \"1m\": is of no use to the policy fixed",
            ),
            (
                "{ name = \"fixed\", idle_after = \"1m\" }",
                "sleep.policy.idle_after = \"1m\": is not said here",
            ),
            (
                "{ name = \"predictive\", lead = \"1h\" }",
                "sleep.policy.lead = \"1h\": must be a time of at most 5m",
            ),
            ("{ name = \"predictive\", wake_cost = 20 }", "sleep.policy.wake_cost = \"20\": must be a time"),
            (
                "{ name = \"predictive\", wake_cost = \"-1m\" }",
                "sleep.policy.wake_cost = \"-1m\": must be a time",
            ),
            ("{ name = \"predictive\", cost = \"1m\" }", "\"cost\" is no parameter; there are idle_after"),
        ] {
            let error = read(&format!("# first\npolicy = {text}")).unwrap_err();
            assert!(error.contains(expected) && error.contains("line 2"), "{error:?} lacks {expected:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in prop::sample::select(Kind::ALL.to_vec()), cost in 0u64..1_000_000, lead in 0u64..300) {
            let mut settings = Settings { kind, ..Settings::default() };
            if kind == Kind::Predictive {
                settings.wake_cost = Duration::from_secs(cost);
                settings.lead = Duration::from_secs(lead);
            }
            let file = File { policy: UsualPolicy { settings } };
            prop_assert_eq!(toml::from_str::<File>(&toml::to_string(&file).unwrap()).unwrap(), file);
        }
    }
}
