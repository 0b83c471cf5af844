//! Which sleepers of a bridge a request for an address, or a question for a name, concerns.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

use dormouse_types::MacAddr;
use dormouse_wire::NameDigest;

/// The sleepers of a bridge by their addresses and names.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_address: HashMap<IpAddr, Vec<MacAddr>>,
    addresses: HashMap<MacAddr, Box<[IpAddr]>>,
    by_name: BTreeSet<(NameDigest, MacAddr)>,
    names: HashMap<MacAddr, Box<[NameDigest]>>,
    /// Those whom any request or question might concern.
    curious: BTreeSet<MacAddr>,
    /// Those of whom no address is known: requests for any might concern them.
    homeless: BTreeSet<MacAddr>,
}

impl Index {
    /// The sleeper `mac` has these addresses and names, and no others. `curious`: requests for
    /// others concern it as well, as those for addresses do a sleeper of whom none is known.
    pub(crate) fn insert(
        &mut self,
        mac: MacAddr,
        addresses: &[IpAddr],
        names: &BTreeSet<NameDigest>,
        curious: bool,
    ) {
        self.remove(mac);
        if curious {
            self.curious.insert(mac);
        }
        if addresses.is_empty() {
            self.homeless.insert(mac);
        }
        self.by_name.extend(names.iter().map(|name| (*name, mac)));
        self.names.insert(mac, names.iter().copied().collect());
        for address in addresses {
            self.by_address.entry(*address).or_default().push(mac);
        }
        self.addresses.insert(mac, addresses.into());
    }

    /// There is no such sleeper any more.
    pub(crate) fn remove(&mut self, mac: MacAddr) {
        self.curious.remove(&mac);
        self.homeless.remove(&mac);
        for name in self.names.remove(&mac).unwrap_or_default() {
            self.by_name.remove(&(name, mac));
        }
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
        known.chain(&self.curious).chain(&self.homeless).copied().collect()
    }

    /// Whom a question for these names concerns, each once.
    pub(crate) fn named(&self, asked: &[NameDigest]) -> BTreeSet<MacAddr> {
        let every = |name: NameDigest| (name, MacAddr([0; 6]))..=(name, MacAddr::BROADCAST);
        let known = asked.iter().flat_map(|name| self.by_name.range(every(*name)).map(|(_, mac)| mac));
        known.chain(&self.curious).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_wire::{MdnsRecord, Names, Persona};
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
                        index.insert(mac(number), &addresses, &BTreeSet::new(), false);
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

    /// A machine that announced these addresses by mDNS, as 10.0.0.N.
    fn names(numbers: &BTreeSet<u8>) -> BTreeSet<NameDigest> {
        let record = |number: &u8| MdnsRecord {
            name: vec![1, b'a' + number, 0],
            kind: 1,
            unique: true,
            ttl: 120,
            data: vec![10, 0, 0, *number],
        };
        let mdns = numbers.iter().map(record).collect();
        Persona { names: Names { mdns, ..Names::default() }, ..Persona::default() }.answers_to()
    }

    proptest! {
        /// The same of names; those who want to see all questions see all.
        #[test]
        fn knows_who_has_a_name(
            steps in prop::collection::vec(
                (0_u8..6, prop::option::of((prop::collection::btree_set(0_u8..5, 0..4), any::<bool>()))),
                0..40,
            ),
            asked in prop::collection::btree_set(0_u8..5, 0..4),
        ) {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            for (number, known) in steps {
                match known {
                    Some((numbers, curious)) => {
                        index.insert(mac(number), &[ip(number)], &names(&numbers), curious);
                        model.insert(mac(number), (numbers, curious));
                    }
                    None => {
                        index.remove(mac(number));
                        model.remove(&mac(number));
                    }
                }
            }
            let concerned = model.iter().filter(|(_, (its, curious))| *curious || !its.is_disjoint(&asked));
            let want: BTreeSet<MacAddr> = concerned.map(|(mac, _)| *mac).collect();
            let asked: Vec<NameDigest> = names(&asked).into_iter().collect();
            prop_assert_eq!(index.named(&asked), want);
            prop_assert_eq!(index.by_name.len(), model.values().map(|(its, _)| its.len()).sum::<usize>());
        }
    }
}
