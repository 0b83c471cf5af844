//! Domains of libvirt as machines of Dormouse.
#![forbid(unsafe_code)]

mod domain;
pub mod xml;

pub use domain::Domain;
