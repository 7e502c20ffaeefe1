//! Collects breaches: counts all of them, and keeps the first ones.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::invariant::Invariant;

/// Breaches that a verdict holds. The others are only counted.
pub const BREACHES_MAX: usize = 10;

impl Breach {
    /// A breach of `invariant` at `seq` of `log`.
    pub fn new(invariant: Invariant, log: String, seq: Option<u64>, what: String) -> Self {
        Self { invariant, sentence: invariant.sentence(), log, seq, what }
    }
}

/// Breaches that are held before they are sorted and cut to [`BREACHES_MAX`].
const HELD_MAX: usize = 8 * BREACHES_MAX;

/// A counter-example to an invariant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breach {
    /// The broken invariant.
    pub invariant: Invariant,
    /// What the invariant says.
    pub sentence: &'static str,
    /// The log.
    pub log: String,
    /// The seq in the log, if the breach has one.
    pub seq: Option<u64>,
    /// What was found, and what should be there.
    pub what: String,
}

/// Breaches. The kept ones are the first by log and seq, in whichever order they are found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    by_invariant: BTreeMap<Invariant, u64>,
    first: Vec<Breach>,
}

impl Findings {
    /// The number of breaches.
    pub(crate) fn count(&self) -> u64 {
        self.by_invariant.values().sum()
    }

    pub(crate) fn add(
        &mut self,
        invariant: Invariant,
        log: &str,
        seq: Option<u64>,
        what: impl Into<String>,
    ) {
        *self.by_invariant.entry(invariant).or_default() += 1;
        self.keep(Breach::new(invariant, log.to_owned(), seq, what.into()));
    }

    /// Adds all breaches of another.
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
        fn order(breach: &Breach) -> (&str, Option<u64>, Invariant, &str) {
            (&breach.log, breach.seq, breach.invariant, &breach.what)
        }
        self.first.sort_by(|a, b| order(a).cmp(&order(b)));
        self.first.truncate(BREACHES_MAX);
    }

    /// The number of breaches of each invariant, and the first of all.
    pub(crate) fn finish(mut self) -> (BTreeMap<Invariant, u64>, Vec<Breach>) {
        self.pick();
        (self.by_invariant, self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_breaches_by_log_and_seq_are_kept_and_all_are_counted() {
        let mut seqs: Vec<u64> = (1..=1_000).collect();
        for _ in 0..2 {
            let (mut all, mut others) = (Findings::default(), Findings::default());
            for seq in &seqs {
                let half = if seq % 2 == 0 { &mut all } else { &mut others };
                half.add(Invariant::F1, "ledger/org:a", Some(*seq), "a hole");
            }
            all.merge(others);
            all.add(Invariant::F6, "ledger/org:b", None, "later");
            assert_eq!(all.count(), 1_001);
            let (by_invariant, first) = all.finish();
            assert_eq!(by_invariant, BTreeMap::from([(Invariant::F1, 1_000), (Invariant::F6, 1)]));
            let kept: Vec<Option<u64>> = first.iter().map(|breach| breach.seq).collect();
            assert_eq!(kept, (1..=10).map(Some).collect::<Vec<_>>());
            seqs.reverse();
        }
    }
}
