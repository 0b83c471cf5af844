//! Names of machines, made of names that are none.

use dormouse_types::MachineName;

/// A machine's name like `name`: what is not allowed in one becomes `-`.
pub(super) fn suggestion(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let dashed: String = name.trim().chars().map(allowed).collect();
    let words = dashed.split('-').filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let start = joined.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let short: String = start.chars().take(MachineName::MAX).collect();
    if short.is_empty() { "machine".into() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_like_the_name() {
        for (name, expected) in [
            ("Web Server (old)", "web-server-old"),
            ("-web", "web"),
            ("_.web", "web"),
            ("Büro", "b-ro"),
            ("服务器", "machine"),
            ("", "machine"),
        ] {
            assert_eq!(suggestion(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn is_always_a_machines_name(name: String) {
            prop_assert!(suggestion(&name).parse::<MachineName>().is_ok());
        }
    }
}
