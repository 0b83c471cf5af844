//! Sets of ports.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

/// Ports of a rule: ascending, without repeats, 1 to 65535; empty means all.
///
/// Written as numbers and ranges between commas: `22,80,5000-5010`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(Vec<u16>);

/// Why a text is no list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// A port is missing, is no number or is out of range.
    #[error("{0:?} is not a port: write numbers from 1 to 65535, separated by commas")]
    Port(String),
    /// A range of ports ends before it begins.
    #[error("{0:?} runs backwards: write the lower port first, as 5000-5010")]
    Backwards(String),
}

impl Ports {
    /// All ports.
    pub const ALL: Self = Self(Vec::new());

    /// Is `port` one of them?
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.binary_search(&port).is_ok()
    }

    /// Does this name every port?
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut ports: Vec<u16> = ports.into_iter().filter(|port| *port != 0).collect();
        ports.sort_unstable();
        ports.dedup();
        Self(ports)
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(list: &str) -> Result<Self, PortsError> {
        let mut ports = Vec::new();
        for part in list.split(',').map(str::trim) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(part)?, port(part)?),
            };
            if first > last {
                return Err(PortsError::Backwards(part.to_string()));
            }
            ports.extend(first..=last);
            // Kept small at each step, so that many overlapping ranges cannot fill the memory.
            ports.sort_unstable();
            ports.dedup();
        }
        Ok(Self(ports))
    }
}

fn port(text: &str) -> Result<u16, PortsError> {
    crate::text::number(text).filter(|port| *port != 0).ok_or_else(|| PortsError::Port(text.to_string()))
}

/// Three or more ports in a row are written as a range; nothing is written for all.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut ports, mut comma) = (self.0.as_slice(), "");
        while let [first, ..] = *ports {
            let row = ports.iter().zip(first..=u16::MAX).take_while(|(port, next)| **port == *next).count();
            let taken = if row >= 3 { row } else { 1 };
            let (taken, rest) = ports.split_at(taken);
            match taken {
                [_, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{first}")?,
            }
            (ports, comma) = (rest, ",");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn reads_numbers_and_ranges() {
        assert_eq!("80, 8000-8002,22,80".parse(), Ok(Ports(vec![22, 80, 8000, 8001, 8002])));
        assert_eq!("65535".parse(), Ok(Ports(vec![65535])));
        let ports: Ports = "22,5000-5010".parse().unwrap();
        assert!(ports.has(22) && ports.has(5010) && !ports.has(23) && !ports.is_all());
        assert!(Ports::ALL.has(1) && Ports::ALL.is_all());
    }

    #[test]
    fn errors_say_what_is_allowed() {
        for text in ["", "0", "65536", "+22", "ssh", "22,", "22 80", "5-", "-5", "1-2-3"] {
            let error = text.parse::<Ports>().unwrap_err();
            assert!(error.to_string().contains("from 1 to 65535"), "{text}: {error}");
        }
        assert_eq!("90-80".parse::<Ports>(), Err(PortsError::Backwards("90-80".into())));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(ports in prop::collection::btree_set(1u16.., 1..40)) {
            let ports: Ports = ports.into_iter().collect();
            prop_assert_eq!(ports.to_string().parse(), Ok(ports));
        }

        #[test]
        fn reads_rows_that_it_writes(start in 1u16..65000, len in 1u16..500) {
            let ports: Ports = (start..start + len).collect();
            prop_assert_eq!(ports.to_string().parse(), Ok(ports));
        }

        #[test]
        fn any_text_is_a_list_or_an_error(list in "[0-9,+ -]{0,20}") {
            if let Ok(ports) = list.parse::<Ports>() {
                prop_assert_eq!(ports.to_string().parse(), Ok(ports));
            }
        }
    }
}
