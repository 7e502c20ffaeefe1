//! Items of one table in memory: a hash map that can also be scanned in order.
//!
//! Each key begins with a prefix, usually a log. The map hashes by prefix, and the few keys of one
//! prefix are sorted. So a lookup costs the same for any number of logs.

use fanfold::host::knob::Knob;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use bytes::Bytes;
use foldhash::fast::FixedState;

/// Up to this many keys of one prefix are in a sorted list, which is smaller and faster than a
/// tree.
const FEW: Knob = Knob::new(24, 1);

/// A map from key to value. A value of `None` means that the key was removed.
#[derive(Default)]
pub(super) struct Items {
    groups: HashMap<Bytes, Group, FixedState>,
    /// The length of a key's prefix in bytes. `None`: the prefix ends with the first zero byte.
    prefix_len: Option<usize>,
}

enum Group {
    Few(Vec<(Bytes, Option<Bytes>)>),
    Many(BTreeMap<Bytes, Option<Bytes>>),
}

impl Items {
    pub(super) fn new(prefix_len: Option<usize>) -> Self {
        Self { groups: HashMap::default(), prefix_len }
    }

    /// An empty map with the same prefix length.
    pub(super) fn empty(&self) -> Self {
        Self::new(self.prefix_len)
    }

    fn prefix_of(&self, key: &[u8]) -> usize {
        let up_to_zero = || key.iter().position(|byte| *byte == 0).map_or(key.len(), |at| at + 1);
        self.prefix_len.unwrap_or_else(up_to_zero).min(key.len())
    }

    /// Whether this is a complete prefix, so that no other prefix begins with it.
    fn is_whole(&self, prefix: &[u8]) -> bool {
        self.prefix_len.map_or(prefix.ends_with(&[0]), |len| prefix.len() == len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let group = self.groups.get(&key[..self.prefix_of(key)])?;
        match group {
            Group::Few(items) => {
                let at = items.binary_search_by(|(found, _)| found[..].cmp(key)).ok()?;
                Some(&items[at].1)
            }
            Group::Many(items) => items.get(key),
        }
    }

    /// Inserts a value. Returns the previous one, or `None` if there was none.
    pub(super) fn insert(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        let prefix = self.prefix_of(&key);
        let group = match self.groups.get_mut(&key[..prefix]) {
            Some(group) => group,
            None => {
                self.groups.insert(key.slice(..prefix), Group::Few(vec![(key, value)]));
                return None;
            }
        };
        match group {
            Group::Few(items) => match items.binary_search_by(|(found, _)| found.cmp(&key)) {
                Ok(at) => Some(std::mem::replace(&mut items[at].1, value)),
                Err(at) if items.len() < FEW.get() => {
                    items.insert(at, (key, value));
                    None
                }
                Err(_) => {
                    let mut many: BTreeMap<_, _> = std::mem::take(items).into_iter().collect();
                    many.insert(key, value);
                    *group = Group::Many(many);
                    None
                }
            },
            Group::Many(items) => items.insert(key, value),
        }
    }

    /// All items, unordered.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.groups.values().flat_map(|group| group.range(&[], None, false))
    }

    /// The first `max` items from `from` (included) to `to` (excluded), in ascending or descending
    /// order.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        max: usize,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        let prefix = &from[..self.prefix_of(from)];
        let mut groups: Vec<(&Bytes, &Group)> = if self.is_whole(prefix) && is_alone(prefix, to) {
            self.groups.get_key_value(prefix).into_iter().collect()
        } else {
            let wanted = |(found, _): &(&Bytes, &Group)| found[..] >= *prefix && found[..] < *to;
            self.groups.iter().filter(wanted).collect()
        };
        groups.sort_unstable_by_key(|(prefix, _)| *prefix);
        if descending {
            groups.reverse();
        }
        let items = groups.iter().flat_map(|(_, group)| group.range(from, Some(to), descending));
        items.take(max).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Whether every key at or above this prefix and below `to` begins with it.
fn is_alone(prefix: &[u8], to: &[u8]) -> bool {
    let Some((last, before)) = prefix.split_last() else { return false };
    let next = to.split_last().filter(|(_, to)| *to == before);
    to.starts_with(prefix) || next.is_some_and(|(next, _)| last.checked_add(1) == Some(*next))
}

type Found<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a>;

impl Group {
    fn range<'a>(&'a self, from: &[u8], to: Option<&[u8]>, descending: bool) -> Found<'a> {
        match self {
            Self::Few(items) => {
                let place = |key: &[u8]| items.partition_point(|(found, _)| found[..] < *key);
                let (start, end) = (place(from), to.map_or(items.len(), place));
                let found = items[start..end.max(start)].iter().map(|(key, value)| (key, value));
                if descending { Box::new(found.rev()) } else { Box::new(found) }
            }
            Self::Many(_) if to.is_some_and(|to| to <= from) => Box::new(std::iter::empty()),
            Self::Many(items) => {
                let to = to.map_or(Unbounded, Excluded);
                let found = items.range::<[u8], _>((Included(from), to));
                if descending { Box::new(found.rev()) } else { Box::new(found) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn items_are_those_of_a_sorted_map(
            prefix_len in prop::option::of(Just(1_usize)),
            keys in prop::collection::vec(
                (prop::collection::vec(0..3_u8, 1..6), any::<Option<u8>>()), 0..200),
            ranges in prop::collection::vec(
                (prop::collection::vec(0..4_u8, 0..5), prop::collection::vec(0..4_u8, 0..5),
                 any::<bool>(), 1..50_usize), 1..20),
        ) {
            let mut items = Items::new(prefix_len);
            let mut model: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
            for (key, value) in keys {
                let (key, value) = (Bytes::from(key), value.map(|value| Bytes::from(vec![value])));
                let before = model.insert(key.clone(), value.clone());
                prop_assert_eq!(items.insert(key, value), before);
            }
            for (key, value) in &model {
                prop_assert_eq!(items.get(key), Some(value));
            }
            prop_assert_eq!(items.iter().count(), model.len());
            for (from, to, descending, max) in ranges {
                let within = model.iter().filter(|(key, _)| **key >= from[..] && **key < to[..]);
                let mut expected: Vec<_> = within.map(|(k, v)| (k.clone(), v.clone())).collect();
                if descending {
                    expected.reverse();
                }
                expected.truncate(max);
                prop_assert_eq!(items.range(&from, &to, descending, max), expected);
            }
        }
    }
}
