//! What libvirt says of domains and networks, read from its XML (libvirt.org: "Domain XML format",
//! "Network XML format"). Pure: any text gives a description or an error.
//!
//! Only what Dormouse must know is read; elements that are not known are passed over, since every
//! version of libvirt adds some.

mod device;
mod domain;
mod interface;
mod network;
mod obstacles;
mod read;
#[cfg(test)]
mod tests;

pub use device::{Disk, Filesystem, HostDevice, Tpm};
pub use domain::{Backing, Description, PowerManagement};
pub use interface::{Interface, Source, Unreachable};
pub use network::{Forward, Network};
pub use obstacles::{Circumstances, obstacles};

/// The longest description that is read, octets: libvirt itself takes no longer message.
const LONGEST: usize = 4 << 20;

/// Why a description is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// It is absurdly long.
    #[error("libvirt's XML has {0} octets, and {LONGEST} are read at most")]
    TooLong(usize),
    /// It is not XML.
    #[error("libvirt's XML is not well-formed")]
    Syntax(#[source] roxmltree::Error),
    /// It describes something else.
    #[error("libvirt's XML is <{found}>, not <{wanted}>")]
    Root {
        /// What it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// An element or attribute that must be there is not.
    #[error("libvirt's XML has no {0}")]
    Missing(&'static str),
    /// A value is not what libvirt's schema allows.
    #[error("libvirt's XML has {what} = {value:?}")]
    Value {
        /// The element or attribute.
        what: &'static str,
        /// Its value, or the beginning of it.
        value: String,
    },
}
