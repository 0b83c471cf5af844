//! What a RAM file adds to a domain's XML, and takes away again.
//!
//! The XML is libvirt's own word, and stays as it is but for these arguments to QEMU.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use roxmltree::{Document, Node};

const NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// The name of the memory, by which our arguments are known.
const ID: &str = "dormouse-ram";
/// libvirt then asks QEMU for the words of its processor in two questions, not in four hundred, at every start.
const QUICK: &str = "cpu-unavailable-features";

/// The definition with its memory of `size` bytes in a file.
pub(crate) fn with_ram_file(xml: &str, ram: &Path, size: u64) -> Option<String> {
    // In QEMU's options a comma is doubled; QEMU documentation, "Device properties".
    let path = ram.to_str()?.replace(',', ",,");
    let memory = format!("memory-backend-file,id={ID},size={size},mem-path={path},share=on");
    let machine = format!("memory-backend={ID}");
    insert(&without(xml)?, &["-object", &memory, "-machine", &machine])
}

/// The definition for a process that waits for a saved state.
pub(crate) fn incoming(xml: &str) -> Option<String> {
    let document = Document::parse(xml).ok()?;
    let has_own = document.root_element().children().any(|node| is_qemu(node, "capabilities"));
    let waiting = insert(&remove(xml, &document, is_incoming)?, &["-incoming", "defer"])?;
    if has_own {
        return Some(waiting);
    }
    let quick = format!("<qemu:capabilities><qemu:del capability='{QUICK}'/></qemu:capabilities>\n");
    let at = waiting.rfind("</domain>")?;
    Some(format!("{}{quick}{}", waiting.get(..at)?, waiting.get(at..)?))
}

/// The definition without anything of ours.
pub(crate) fn without(xml: &str) -> Option<String> {
    let document = Document::parse(xml).ok()?;
    let ours = |arguments: &[Node<'_, '_>]| is_ours(arguments) || is_incoming(arguments);
    // `-incoming` is ours only beside our memory: a user may have a reason for his own.
    if !has_ram_file(xml) {
        return Some(xml.to_owned());
    }
    let left = remove(xml, &document, ours)?;
    let document = Document::parse(&left).ok()?;
    let quick = document.root_element().children().find(|node| is_quick(*node)).map(|node| node.range());
    let Some(quick) = quick else { return Some(left) };
    Some(format!("{}{}", left.get(..quick.start)?, left.get(quick.end..)?))
}

/// The definition's memory is a file of ours: its argument.
pub(crate) fn has_ram_file(xml: &str) -> bool {
    ram_argument(xml).is_some()
}

/// The file that a definition's memory is, and its bytes, if it is one of ours.
pub(crate) fn ram_file(xml: &str) -> Option<(PathBuf, u64)> {
    let argument = ram_argument(xml)?;
    let (head, path) = argument.split_once(",mem-path=")?;
    let (_, size) = head.split_once(",size=")?;
    let path = path.strip_suffix(",share=on")?.replace(",,", ",");
    Some((path.into(), size.parse().ok()?))
}

/// Is there nothing among these arguments to QEMU but ours?
pub(crate) fn are_ours(arguments: &[String]) -> bool {
    let is_pair = |pair: &[String]| matches!(pair, [name, value] if is_our_pair(name, value) || name == "-incoming" && value == "defer");
    let has_memory = arguments.iter().any(|value| is_our_pair("-object", value));
    has_memory && arguments.chunks(2).all(is_pair)
}

/// Is it exactly the file `ram` of `size` bytes, in a process that boots?
pub(crate) fn is_current(xml: &str, ram: &Path, size: u64) -> bool {
    with_ram_file(xml, ram, size).is_some_and(|wanted| arguments(&wanted) == arguments(xml))
}

fn ram_argument(xml: &str) -> Option<String> {
    arguments(xml).into_iter().find(|value| value.starts_with(&format!("memory-backend-file,id={ID},")))
}

fn arguments(xml: &str) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    command_line(&document)
        .into_iter()
        .flat_map(|line| line.children().filter(|node| is_qemu(*node, "arg")))
        .filter_map(|node| node.attribute("value").map(str::to_owned))
        .collect()
}

fn is_qemu(node: Node<'_, '_>, name: &str) -> bool {
    node.tag_name().name() == name && node.tag_name().namespace() == Some(NAMESPACE)
}

/// What [`incoming`] adds, and nothing else.
fn is_quick(node: Node<'_, '_>) -> bool {
    let mut words = node.children().filter(Node::is_element);
    let is_ours = |word: Node<'_, '_>| is_qemu(word, "del") && word.attribute("capability") == Some(QUICK);
    is_qemu(node, "capabilities") && words.next().is_some_and(is_ours) && words.next().is_none()
}

fn command_line<'a, 'i>(document: &'a Document<'i>) -> Option<Node<'a, 'i>> {
    document.root_element().children().find(|node| is_qemu(*node, "commandline"))
}

fn value<'a>(node: Option<&Node<'a, '_>>) -> &'a str {
    node.and_then(|node| node.attribute("value")).unwrap_or_default()
}

/// The first two of `arguments` name our memory.
fn is_ours(arguments: &[Node<'_, '_>]) -> bool {
    is_our_pair(value(arguments.first()), value(arguments.get(1)))
}

fn is_our_pair(name: &str, value: &str) -> bool {
    match name {
        "-object" => value.starts_with(&format!("memory-backend-file,id={ID},")),
        "-machine" => value == format!("memory-backend={ID}"),
        _ => false,
    }
}

fn is_incoming(arguments: &[Node<'_, '_>]) -> bool {
    value(arguments.first()) == "-incoming" && value(arguments.get(1)) == "defer"
}

/// Removes pairs of arguments, and the list itself if nothing is left of it.
fn remove(xml: &str, document: &Document<'_>, is_out: impl Fn(&[Node<'_, '_>]) -> bool) -> Option<String> {
    let Some(line) = command_line(document) else { return Some(xml.to_owned()) };
    let all: Vec<_> = line.children().filter(Node::is_element).collect();
    let (mut out, mut n) = (Vec::<Range<usize>>::new(), 0);
    while let Some(rest) = all.get(n..).filter(|rest| !rest.is_empty()) {
        if is_out(rest) {
            out.extend(rest.iter().take(2).map(Node::range));
            n += 1;
        }
        n += 1;
    }
    if out.len() == all.len() {
        out = vec![line.range()];
    }
    let mut left = String::with_capacity(xml.len());
    let mut at = 0;
    for range in out {
        left += xml.get(at..range.start)?;
        at = range.end;
    }
    left += xml.get(at..)?;
    Some(left)
}

/// Adds arguments behind those that are there.
fn insert(xml: &str, values: &[&str]) -> Option<String> {
    let mut added = String::new();
    for value in values {
        let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
        added += &format!("<qemu:arg value='{value}'/>\n");
    }
    let document = Document::parse(xml).ok()?;
    let root = document.root_element();
    if let Some(line) = command_line(&document) {
        let range = line.range();
        let end = range.start + xml.get(range.clone())?.rfind("</")?;
        return Some(format!("{}{added}{}", xml.get(..end)?, xml.get(end..)?));
    }
    let end = xml.rfind("</domain>")?;
    let start = root.range().start + "<domain".len();
    // The prefix must be there; libvirt writes it only if it has a use for it.
    let prefix = match root.lookup_namespace_uri(Some("qemu")) {
        Some(NAMESPACE) => String::new(),
        Some(_) => return None,
        None => format!(" xmlns:qemu='{NAMESPACE}'"),
    };
    let (head, body, tail) = (xml.get(..start)?, xml.get(start..end)?, xml.get(end..)?);
    Some(format!("{head}{prefix}{body}<qemu:commandline>\n{added}</qemu:commandline>\n{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = "<domain type='kvm'>\n  <name>web</name>\n</domain>\n";
    const RAM: &str = "/var/lib/dormouse/domains/web/ram";

    fn enabled(xml: &str) -> String {
        with_ram_file(xml, Path::new(RAM), 1 << 28).unwrap()
    }

    #[test]
    fn is_added_once_and_taken_away_again() {
        let once = enabled(PLAIN);
        assert_eq!(
            arguments(&once),
            [
                "-object",
                "memory-backend-file,id=dormouse-ram,size=268435456,mem-path=/var/lib/dormouse/domains/web/ram,share=on",
                "-machine",
                "memory-backend=dormouse-ram",
            ]
        );
        assert_eq!(arguments(&enabled(&once)), arguments(&once));
        assert!(is_current(&once, Path::new(RAM), 1 << 28) && !is_current(&once, Path::new(RAM), 1 << 29));
        assert!(!is_current(PLAIN, Path::new(RAM), 1 << 28) && !has_ram_file(PLAIN));
        let back = without(&once).unwrap();
        assert!(are_ours(&arguments(&once)) && are_ours(&arguments(&incoming(&once).unwrap())));
        assert!(!are_ours(&[]) && !are_ours(&["-incoming".to_owned(), "defer".to_owned()]));
        assert!(arguments(&back).is_empty() && !back.contains("commandline"), "{back}");
    }

    #[test]
    fn the_users_own_arguments_stay() {
        let own = "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:commandline>\
                   <qemu:arg value='-machine'/><qemu:arg value='hpet=off'/>\
                   <qemu:env name='A' value='b'/></qemu:commandline></domain>";
        let both = enabled(own);
        assert_eq!(arguments(&both).len(), 6);
        assert!(!are_ours(&arguments(&both)));
        let back = without(&both).unwrap();
        assert_eq!(arguments(&back), ["-machine", "hpet=off"]);
        assert!(back.contains("qemu:env"));
        assert_eq!(without(own).unwrap(), own);
    }

    #[test]
    fn a_process_that_waits_is_told_so_once_and_a_copy_of_it_is_repaired() {
        let waiting = incoming(&incoming(&enabled(PLAIN)).unwrap()).unwrap();
        assert_eq!(arguments(&waiting)[4..], ["-incoming", "defer"]);
        assert_eq!(waiting.matches("<qemu:capabilities>").count(), 1);
        // Somebody has defined the domain from what `virsh dumpxml` says of it while it runs.
        assert!(!is_current(&waiting, Path::new(RAM), 1 << 28));
        assert!(is_current(&enabled(&waiting), Path::new(RAM), 1 << 28));
        assert!(!enabled(&waiting).contains("capabilities"));
    }

    #[test]
    fn odd_names_are_told_apart() {
        let odd = with_ram_file(PLAIN, Path::new("/m/a,b'c<d&e"), 4096).unwrap();
        assert!(ram_argument(&odd).unwrap().contains("mem-path=/m/a,,b'c<d&e,share"), "{odd}");
        let other = PLAIN.replace("<domain", "<domain xmlns:qemu='urn:other'");
        assert_eq!(ram_file(&odd), Some(("/m/a,b'c<d&e".into(), 4096)));
        assert_eq!(ram_file(PLAIN), None);
        assert_eq!(with_ram_file(&other, Path::new(RAM), 4096), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(<domain( type='x')?>)?[<>/a-z:' =&;]{0,40}(</domain>)?") {
            let _ = (with_ram_file(&text, Path::new(RAM), 1), incoming(&text), without(&text), has_ram_file(&text));
        }
    }
}
