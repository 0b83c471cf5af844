//! The machine file of a domain.

use dormouse_api_types::{Problem, ProblemKind};
use dormouse_platform::{Candidate, Joined};
use dormouse_types::{Depth, MachineName};
use toml_edit::{DocumentMut, Item, Table, Value, value};

use super::{Wishes, bars};

const MIB: u64 = 1 << 20;

/// Why a domain without an interface that somebody can stand in for does not fall asleep by itself.
pub(crate) const NO_PACKET: &str =
    "it has no interface by which a packet could wake it, only commands and holds do";

/// Is it kept from falling asleep by itself? Its user may wish otherwise.
pub(super) fn stays_awake(candidate: &Candidate, wishes: &Wishes) -> bool {
    let key = |wish: &String| wish.split_once('=').map(|(key, _)| key.replace(' ', ""));
    let has_say = |key: String| matches!(&*key, "sleep" | "sleep.idle_after" | "sleep.policy");
    candidate.interfaces.is_empty() && !wishes.set.iter().filter_map(key).any(has_say)
}

/// Writes the file, with the keys that the user set in it.
pub(super) fn write(
    candidate: &Candidate,
    name: &MachineName,
    depth: Depth,
    wishes: &Wishes,
) -> Result<String, Problem> {
    let mut file = DocumentMut::new();
    file["name"] = value(name.as_str());
    file["libvirt"] = Item::Table(libvirt(candidate, wishes));
    if !candidate.interfaces.is_empty() {
        file["interface"] = Item::ArrayOfTables(candidate.interfaces.iter().map(interface).collect());
    }
    let (mut sleep, mut notes) = (Table::new(), Vec::new());
    if depth != Depth::Saved {
        sleep["depth"] = value(depth.as_str());
        notes.push(format!("Not saved: {}.", bars(candidate, Depth::Saved)));
    }
    if stays_awake(candidate, wishes) {
        sleep["idle_after"] = value("never");
        notes.push(format!("Not by itself: {NO_PACKET}."));
    }
    if !notes.is_empty() {
        comment(&mut sleep, &notes.join(" "));
        file["sleep"] = Item::Table(sleep);
    }
    for wish in &wishes.set {
        set(&mut file, wish)?;
    }
    Ok(file.to_string())
}

fn libvirt(candidate: &Candidate, wishes: &Wishes) -> Table {
    let mut table = Table::new();
    table["domain"] = value(&candidate.name);
    if let Some(uuid) = &candidate.uuid {
        table["uuid"] = value(uuid);
    }
    if let Some(uri) = &wishes.uri {
        table["uri"] = value(uri);
    }
    table["memory"] = value(memory(candidate.memory));
    table
}

/// Whole MiB, as the file has them.
pub(super) fn memory(bytes: u64) -> String {
    let mib = bytes.div_ceil(MIB);
    if mib.is_multiple_of(1024) { format!("{}GiB", mib / 1024) } else { format!("{mib}MiB") }
}

pub(super) fn interface(joined: &Joined) -> Table {
    let mut table = Table::new();
    table["mac"] = value(joined.mac.to_string());
    table["bridge"] = value(&joined.bridge);
    table
}

/// Puts a comment before a table.
fn comment(table: &mut Table, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    table.decor_mut().set_prefix(format!("\n# {text}\n"));
}

/// Sets a key as the user wrote it: `sleep.idle_after="30m"`. A value that is no TOML is taken for a text, so
/// that shells may eat the quotes.
fn set(file: &mut DocumentMut, wish: &str) -> Result<(), Problem> {
    let invalid = |why: &str| {
        Problem::new(ProblemKind::Invalid, format!("--set {wish}: {why}"))
            .key("set")
            .fix("write a key of the machine file and its value: --set sleep.idle_after=30m")
    };
    let (key, text) = wish.split_once('=').ok_or_else(|| invalid("there is no '='"))?;
    let path: Vec<&str> = key.trim().split('.').map(str::trim).collect();
    let Some((last, tables)) = path.split_last() else { return Err(invalid("there is no key")) };
    if path.iter().any(|part| part.is_empty()) {
        return Err(invalid("there is no key"));
    }
    if matches!(path.first(), Some(&"name" | &"libvirt")) && !matches!(*last, "save" | "page_out") {
        return Err(invalid("what the domain is, it is: only libvirt.save and libvirt.page_out can be set"));
    }
    let mut table = file.as_table_mut();
    for part in tables {
        let inner = table.entry(part).or_insert_with(|| Item::Table(Table::new()));
        table = inner.as_table_mut().ok_or_else(|| invalid(&format!("{part} is not a table")))?;
    }
    let text = text.trim();
    let item = text.parse::<Value>().unwrap_or_else(|_| text.into());
    table.insert(last, value(item));
    Ok(())
}
