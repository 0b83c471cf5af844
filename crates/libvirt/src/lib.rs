//! Domains of libvirt as machines of Dormouse.
#![forbid(unsafe_code)]

mod domain;

pub use domain::Domain;
