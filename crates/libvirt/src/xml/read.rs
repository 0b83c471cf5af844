//! Looking things up in XML.

use std::str::FromStr;

use roxmltree::{Document, Node, ParsingOptions};

use super::{LONGEST, XmlError};

/// The most elements and texts of a description: a domain of a hundred devices has some thousand.
const NODES: u32 = 200_000;
/// The longest value that an error repeats, characters.
const SHOWN: usize = 60;

/// Parses `text`, whose root is to be `wanted`, and gives that to `read`.
pub(super) fn document<T>(
    text: &str,
    wanted: &'static str,
    read: impl FnOnce(Node<'_, '_>) -> Result<T, XmlError>,
) -> Result<T, XmlError> {
    if text.len() > LONGEST {
        return Err(XmlError::TooLong(text.len()));
    }
    // Without a DTD there are no entities that grow.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(XmlError::Syntax)?;
    let root = document.root_element();
    if root.tag_name().name() != wanted {
        return Err(XmlError::Root { found: shortened(root.tag_name().name()), wanted });
    }
    read(root)
}

/// The elements `name` directly under `node`.
pub(super) fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// The first element `name` directly under `node`.
pub(super) fn child<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// The element at the end of a path of names.
pub(super) fn descend<'a, 'i: 'a>(node: Node<'a, 'i>, path: &[&'static str]) -> Option<Node<'a, 'i>> {
    path.iter().try_fold(node, |node, name| child(node, name))
}

/// The text of the element `name` under `node`, without the blanks around it; `None` if it is empty.
pub(super) fn text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// An attribute; `None` if it is empty.
pub(super) fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// An attribute of the element `element` under `node`.
pub(super) fn attribute_of(node: Node<'_, '_>, element: &'static str, name: &str) -> Option<String> {
    attribute(child(node, element)?, name)
}

/// `yes` or `on`, where libvirt writes one of those or their contraries.
pub(super) fn is_yes(value: Option<&str>) -> Option<bool> {
    match value? {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

/// A value of a type of ours.
pub(super) fn parsed<T: FromStr>(what: &'static str, value: &str) -> Result<T, XmlError> {
    value.trim().parse().map_err(|_| XmlError::Value { what, value: shortened(value) })
}

/// An amount of memory in bytes: a number with an attribute `unit`, KiB where there is none
/// ("Domain XML format", memory allocation).
pub(super) fn size(node: Node<'_, '_>, what: &'static str) -> Result<u64, XmlError> {
    let text = node.text().unwrap_or_default();
    let unit = node.attribute("unit").unwrap_or("KiB");
    let wrong = |value: &str| XmlError::Value { what, value: shortened(value) };
    let factor: u64 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return Err(wrong(unit)),
    };
    parsed::<u64>(what, text)?.checked_mul(factor).ok_or_else(|| wrong(text))
}

fn shortened(value: &str) -> String {
    value.chars().take(SHOWN).collect()
}
