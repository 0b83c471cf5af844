//! Which sleepers of a bridge a request for an address concerns.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

use dormouse_types::MacAddr;

/// The sleepers of a bridge by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_address: HashMap<IpAddr, Vec<MacAddr>>,
    addresses: HashMap<MacAddr, Box<[IpAddr]>>,
    /// Those whom any request might concern.
    curious: BTreeSet<MacAddr>,
}

impl Index {
    /// The sleeper `mac` has these addresses, and no others. `curious`: requests for other
    /// addresses concern it as well, as they do a sleeper of whom no address is known.
    pub(crate) fn insert(&mut self, mac: MacAddr, addresses: &[IpAddr], curious: bool) {
        self.remove(mac);
        if addresses.is_empty() || curious {
            self.curious.insert(mac);
        }
        for address in addresses {
            self.by_address.entry(*address).or_default().push(mac);
        }
        self.addresses.insert(mac, addresses.into());
    }

    /// There is no such sleeper any more.
    pub(crate) fn remove(&mut self, mac: MacAddr) {
        self.curious.remove(&mac);
        for address in self.addresses.remove(&mac).unwrap_or_default() {
            if let Entry::Occupied(mut found) = self.by_address.entry(address) {
                found.get_mut().retain(|other| *other != mac);
                if found.get().is_empty() {
                    found.remove();
                }
            }
        }
    }

    /// Whom a request for the address `asked` concerns, each once. Who has the address `claimed`,
    /// that of the asker, may be in conflict with it.
    pub(crate) fn concerned(&self, asked: IpAddr, claimed: Option<IpAddr>) -> BTreeSet<MacAddr> {
        let addresses = std::iter::once(asked).chain(claimed);
        let known = addresses.filter_map(|address| self.by_address.get(&address)).flatten();
        known.chain(&self.curious).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    fn ip(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    proptest! {
        /// However it came about, the index says what looking at everybody says.
        #[test]
        fn says_what_looking_at_everybody_says(
            steps in prop::collection::vec((0_u8..6, prop::option::of(prop::collection::btree_set(0_u8..5, 0..3))), 0..40),
            target in 0_u8..5,
            sender in prop::option::of(0_u8..5),
        ) {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            for (number, addresses) in steps {
                match addresses {
                    Some(addresses) => {
                        let addresses: Vec<IpAddr> = addresses.into_iter().map(ip).collect();
                        index.insert(mac(number), &addresses, false);
                        model.insert(mac(number), addresses);
                    }
                    None => {
                        index.remove(mac(number));
                        model.remove(&mac(number));
                    }
                }
            }
            let (asked, claimed) = (ip(target), sender.map(ip));
            let concerns = |has: &Vec<IpAddr>| {
                has.is_empty() || has.contains(&asked) || claimed.is_some_and(|claimed| has.contains(&claimed))
            };
            let want: BTreeSet<MacAddr> =
                model.iter().filter(|(_, has)| concerns(has)).map(|(mac, _)| *mac).collect();
            prop_assert_eq!(index.concerned(asked, claimed), want);
            let owners: usize = index.by_address.values().map(Vec::len).sum();
            let owned: usize = model.values().map(Vec::len).sum();
            prop_assert_eq!(owners, owned);
        }
    }
}
