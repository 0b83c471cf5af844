//! What may be written, and what is said of what may not.

use super::*;
use crate::chain::chain;

const SHIPPED: &str = include_str!("../../../../packaging/dormoused.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/dormouse/dormoused.toml"))
}

/// The shipped file with each `#key = value` and `#[table]` in force; `# ` starts prose.
fn uncommented() -> String {
    SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_shipped_file_changes_nothing() {
    assert_eq!(parse(SHIPPED).unwrap(), Config::default());
}

#[test]
fn the_shipped_file_shows_exactly_the_defaults() {
    assert_eq!(parse(&uncommented()).unwrap(), Config::default());
}

#[test]
fn the_shipped_file_shows_every_key() {
    let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
    let known = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&shown), keys(&known));
}

fn keys(table: &toml::Table) -> std::collections::BTreeSet<String> {
    let of = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(inner) => keys(inner).iter().map(|k| format!("{key}.{k}")).collect(),
        _ => vec![key.clone()],
    };
    table.iter().flat_map(of).collect()
}

#[test]
fn errors_name_the_key_the_value_and_what_is_allowed() {
    for (text, parts) in [
        ("stat_dir = \"/x\"", ["stat_dir", "unknown field", "state_dir"]),
        ("state_dir = \"x\"", ["state_dir", "= x ", "absolute path"]),
        ("sample_interval = \"5\"", ["sample_interval", "\"5\"", "as 200ms, 5s or 10m"]),
        ("sample_interval = \"1ms\"", ["sample_interval", "1ms", "100ms to 2m"]),
        ("[limits]\nheld_bytes = \"1KiB\"", ["limits.held_bytes", "1024", "64KiB"]),
        ("[limits]\nheld_total = \"64KiB\"", ["limits.held_total", "65536", "1MiB"]),
        ("[limits]\nheld_bytes = \"many\"", ["held_bytes", "\"many\"", "as 8MiB"]),
        ("on_stop = \"kill\"", ["on_stop", "kill", "leave"]),
        ("log = \"loud=quiet\"", ["log", "loud=quiet", "debug"]),
        ("event_history = 0", ["event_history", "= 0 ", "from 1"]),
        ("[sleep]\npolicy = \"lazy\"", ["sleep.policy", "lazy", "predictive"]),
        ("[sleep.policy]\nname = \"fixed\"\nlead = \"1m\"", ["sleep.policy.lead", "1m", "remove it"]),
        ("[scan]\nports = 257", ["scan.ports", "= 257 ", "256"]),
        ("[scan]\nwithin = \"2h\"", ["scan.within", "2h", "100ms to 1h"]),
        ("[scan]\ntrusted = [\"ten\"]", ["trusted", "\"ten\"", "10.0.0.0/8"]),
        ("[budget]\nawake_memory = \"much\"", ["awake_memory", "\"much\"", "16GiB, or \"none\""]),
        ("[budget]\nawake_memory = 0", ["budget.awake_memory", "= 0 ", "at least 1MiB"]),
        ("[budget.owners]\nalice = \"1KiB\"", ["budget.owners.alice", "= 1024 ", "at least 1MiB"]),
        ("[metering]\nhourly = \"1h\"", ["metering.hourly", "1h", "2d to 10 years"]),
        ("[metering]\nkeep = \"3d\"", ["metering.keep", "3d", "metering.hourly"]),
        ("[energy]\nbusy_watts = -1", ["energy.busy_watts", "-1", "0 to 1000"]),
        ("[energy]\nmemory_watts = nan", ["energy.memory_watts", "NaN", "0 to 1000"]),
        ("[responder.a]\nargs = []", ["responder.a", "missing field", "program"]),
        ("[responder.a]\nprogram = \"b\"", ["responder.a.program", "= b ", "absolute path"]),
        ("[responder.\"a b\"]\nprogram = \"/b\"", ["responder", "= a b ", "letters, digits"]),
        ("[policy.a]\nprogram = \"b\"", ["policy.a.program", "= b ", "absolute path"]),
        ("[responder.a]\nprogram = \"/b\"\ntimeout = \"2m\"", ["responder.a.timeout", "2m", "1ms to 1m"]),
    ] {
        let error = chain(&parse(text).unwrap_err());
        for part in parts {
            assert!(error.contains(part), "{text}: {error:?} lacks {part:?}");
        }
    }
}

#[test]
fn budgets_are_sizes_or_none() {
    let text = "[budget]\nawake_memory = \"16GiB\"\n[budget.owners]\nalice = 1048576\nbob = \"none\"";
    let bounds = parse(text).unwrap().budget.bounds();
    assert_eq!((bounds.host, bounds.owners), (Some(16 << 30), [("alice".to_owned(), 1 << 20)].into()));
    assert!(parse("").unwrap().budget.bounds().is_empty());
}

#[test]
fn responders_are_programs_with_a_user_of_little_rights() {
    let text = "[responder.snmp]\nprogram = \"/usr/bin/snmp-proxy\"\nargs = [\"-q\"]";
    let config = parse(text).unwrap();
    let responder = &config.responder["snmp"];
    let expected = dormouse_external::Program {
        name: "snmp".into(),
        program: "/usr/bin/snmp-proxy".into(),
        args: vec!["-q".into()],
        user: Some("nobody".into()),
        timeout: std::time::Duration::from_secs(1),
    };
    assert_eq!(responder.program("snmp", true), expected);
    assert_eq!(responder.program("snmp", false).user, None);
}

#[test]
fn the_example_of_a_responder_is_one() {
    let example: Vec<_> = SHIPPED.lines().skip_while(|line| !line.starts_with("#   [responder.")).collect();
    let example: Vec<_> = example.iter().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert!(parse(&example.join("\n")).unwrap().responder.contains_key("snmp"), "{example:?}");
}

#[test]
fn only_the_default_file_may_be_absent() {
    let error = Config::read(Path::new("/nonexistent/dormoused.toml")).unwrap_err();
    assert!(chain(&error).contains("/nonexistent/dormoused.toml"));
}
