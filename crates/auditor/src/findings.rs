//! What is found to be wrong: all of it counted, the first of it kept.

use std::collections::BTreeMap;

use crate::{BREACHES_MAX, Breach};

/// Breaches that are held before the first are picked out.
const HELD_MAX: usize = 8 * BREACHES_MAX;

/// Breaches, the first of them in the order of their logs and seqs, whoever is found first.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    by_invariant: BTreeMap<&'static str, u64>,
    first: Vec<Breach>,
}

impl Findings {
    /// Of so many breaches.
    pub(crate) fn count(&self) -> u64 {
        self.by_invariant.values().sum()
    }

    /// Adds one.
    pub(crate) fn add(
        &mut self,
        invariant: &'static str,
        log: &str,
        seq: Option<u64>,
        what: impl Into<String>,
    ) {
        *self.by_invariant.entry(invariant).or_default() += 1;
        self.keep(Breach { invariant, log: log.to_owned(), seq, what: what.into() });
    }

    /// Adds all of another.
    pub(crate) fn merge(&mut self, other: Self) {
        for (invariant, count) in other.by_invariant {
            *self.by_invariant.entry(invariant).or_default() += count;
        }
        other.first.into_iter().for_each(|breach| self.keep(breach));
    }

    fn keep(&mut self, breach: Breach) {
        self.first.push(breach);
        if self.first.len() > HELD_MAX {
            self.pick();
        }
    }

    fn pick(&mut self) {
        fn order(breach: &Breach) -> (&str, Option<u64>, &str, &str) {
            (&breach.log, breach.seq, breach.invariant, &breach.what)
        }
        self.first.sort_by(|a, b| order(a).cmp(&order(b)));
        self.first.truncate(BREACHES_MAX);
    }

    /// How many there are of each invariant, and the first of all.
    pub(crate) fn finish(mut self) -> (BTreeMap<&'static str, u64>, Vec<Breach>) {
        self.pick();
        (self.by_invariant, self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_whoever_comes_first_and_all_are_counted() {
        let mut seqs: Vec<u64> = (1..=1_000).collect();
        for _ in 0..2 {
            let (mut all, mut others) = (Findings::default(), Findings::default());
            for seq in &seqs {
                let half = if seq % 2 == 0 { &mut all } else { &mut others };
                half.add("F1", "ledger/org:a", Some(*seq), "a hole");
            }
            all.merge(others);
            all.add("F6", "ledger/org:b", None, "later");
            assert_eq!(all.count(), 1_001);
            let (by_invariant, first) = all.finish();
            assert_eq!(by_invariant, BTreeMap::from([("F1", 1_000), ("F6", 1)]));
            let kept: Vec<Option<u64>> = first.iter().map(|breach| breach.seq).collect();
            assert_eq!(kept, (1..=10).map(Some).collect::<Vec<_>>());
            seqs.reverse();
        }
    }
}
