//! A machine file follows the definition of its domain: what the domain says is changed in it, and all else
//! stays as its user wrote it, comments too.

use dormouse_machine::spec::{InterfaceSpec, MachineSpec, PlatformSpec};
use dormouse_platform::{Candidate, Joined};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TomlError, value};

use super::file::{interface, memory};

/// A file that is another one, and how it differs, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) file: String,
    pub(crate) what: String,
}

/// What becomes of the file of `spec` now that its domain is `candidate`; `None` if it stays.
pub(crate) fn redefined(
    text: &str,
    spec: &MachineSpec,
    candidate: &Candidate,
) -> Result<Option<Change>, TomlError> {
    let PlatformSpec::Libvirt(libvirt) = &spec.platform else { return Ok(None) };
    let mut file: DocumentMut = text.parse()?;
    let mut what = Vec::new();
    if libvirt.domain != candidate.name {
        what.push(format!("it is domain {} now", candidate.name));
        set(&mut file, "domain", &candidate.name);
    }
    let new_memory = memory(candidate.memory);
    if libvirt.memory.is_some_and(|bytes| memory(bytes) != new_memory) {
        what.push(format!("it has {new_memory} of memory"));
        set(&mut file, "memory", &new_memory);
    }
    let interfaces = interfaces(spec, candidate);
    what.extend(interfaces_changed(&spec.interfaces, &interfaces));
    if spec.interfaces.iter().map(key).ne(interfaces.iter().map(|i| (i.mac, &*i.bridge))) {
        set_interfaces(&mut file, &interfaces);
    }
    Ok((!what.is_empty()).then(|| Change { file: file.to_string(), what: what.join("; ") }))
}

/// One whose bridge cannot be told now, as while its network is not started, stays as it is.
fn interfaces(spec: &MachineSpec, candidate: &Candidate) -> Vec<Joined> {
    let is_kept = |old: &&InterfaceSpec| candidate.unjoined.contains(&old.mac);
    let kept =
        |old: &InterfaceSpec| Joined { mac: old.mac, bridge: old.bridge.clone(), addresses: Vec::new() };
    let mut interfaces = candidate.interfaces.clone();
    interfaces.extend(spec.interfaces.iter().filter(is_kept).map(kept));
    // In the order of the file: an order that is another one is no change.
    let place = |mac| spec.interfaces.iter().position(|old| old.mac == mac).unwrap_or(usize::MAX);
    interfaces.sort_by_key(|joined| place(joined.mac));
    interfaces
}

fn key(interface: &InterfaceSpec) -> (dormouse_types::MacAddr, &str) {
    (interface.mac, &interface.bridge)
}

fn interfaces_changed(old: &[InterfaceSpec], new: &[Joined]) -> Vec<String> {
    let mut what = Vec::new();
    for joined in new {
        match old.iter().find(|interface| interface.mac == joined.mac) {
            None => what.push(format!("interface {} in {} is new", joined.mac, joined.bridge)),
            Some(interface) if interface.bridge != joined.bridge => {
                what.push(format!("interface {} is in {} now", joined.mac, joined.bridge));
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|interface| new.iter().all(|joined| joined.mac != interface.mac));
    what.extend(gone.map(|interface| format!("interface {} is gone", interface.mac)));
    what
}

fn set(file: &mut DocumentMut, name: &str, text: &str) {
    if let Some(table) = file.get_mut("libvirt").and_then(Item::as_table_like_mut) {
        // The comment after a value is the value's.
        let decor = table.get(name).and_then(Item::as_value).map(|old| old.decor().clone());
        let mut new = toml_edit::Value::from(text);
        if let Some(decor) = decor {
            *new.decor_mut() = decor;
        }
        table.insert(name, value(new));
    }
}

/// Those that stay keep what their user wrote of them.
fn set_interfaces(file: &mut DocumentMut, interfaces: &[Joined]) {
    let old = match file.remove("interface") {
        Some(Item::ArrayOfTables(tables)) => tables.iter().cloned().collect(),
        // `interface = [{ ... }]` is one too.
        Some(item) => item.into_array_of_tables().map(|t| t.iter().cloned().collect()).unwrap_or_default(),
        None => Vec::new(),
    };
    let is_of = |table: &Table, joined: &Joined| {
        table.get("mac").and_then(Item::as_str).and_then(|mac| mac.parse().ok()) == Some(joined.mac)
    };
    let new = interfaces.iter().map(|joined| match old.iter().find(|table| is_of(table, joined)) {
        Some(table) => {
            let mut table = table.clone();
            table["bridge"] = value(&joined.bridge);
            table
        }
        None => interface(joined),
    });
    let new: ArrayOfTables = new.collect();
    if !new.is_empty() {
        file.insert("interface", Item::ArrayOfTables(new));
    }
}
