//! What the calls have cost: capacity units per table, calls per operation.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// Adds up what every call reports of itself. Clones share one sum.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Usage>>);

/// A sum of costs. The difference of two snapshots of a meter is what was spent between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Capacity per table, its indexes included.
    pub tables: BTreeMap<String, Units>,
    /// Attempts of calls per operation of AWS, such as `PutItem`; those that failed count, too.
    pub calls: BTreeMap<&'static str, u64>,
}

/// Capacity of one table, in DynamoDB's units. Halves are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    /// Read units: 4 KB, strongly consistent.
    pub read: f64,
    /// Write units: 1 KB.
    pub write: f64,
    /// Writes whose condition failed. DynamoDB bills them by the size of the item, but its answer
    /// does not say how much: at least one unit each, which is not in `write`.
    pub conflicts: f64,
}

impl Meter {
    /// All that was spent since the meter was made.
    pub fn snapshot(&self) -> Usage {
        self.usage().clone()
    }

    /// An attempt of a call begins.
    pub(crate) fn called(&self, operation: &'static str) {
        *self.usage().calls.entry(operation).or_default() += 1;
    }

    /// A call that reads has said what it consumed.
    pub(crate) fn read<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        for (table, units) in consumed.into_iter().filter_map(total) {
            self.add(table, Units { read: units, ..Units::default() });
        }
    }

    /// A call that writes has said what it consumed.
    pub(crate) fn wrote<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        for (table, units) in consumed.into_iter().filter_map(total) {
            self.add(table, Units { write: units, ..Units::default() });
        }
    }

    /// The condition of a write has failed.
    pub(crate) fn conflicted(&self, table: &str) {
        self.add(table, Units { conflicts: 1.0, ..Units::default() });
    }

    fn add(&self, table: &str, units: Units) {
        let mut usage = self.usage();
        match usage.tables.get_mut(table) {
            Some(sum) => *sum += units,
            None => _ = usage.tables.insert(table.to_owned(), units),
        }
    }

    /// Nothing that holds the lock can panic half-way.
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Transactions say apart what they read and wrote; all other calls only do the one or the other.
fn total(consumed: &ConsumedCapacity) -> Option<(&str, f64)> {
    Some((table_name(consumed.table_name()?), consumed.capacity_units()?))
}

/// The answer may name the table by its ARN.
fn table_name(named: &str) -> &str {
    named.rsplit_once("table/").map_or(named, |(_, name)| name)
}

impl Usage {
    /// The units of one table; zero if it was never used.
    pub fn of(&self, table: &str) -> Units {
        self.tables.get(table).copied().unwrap_or_default()
    }

    /// The units of all tables together.
    pub fn total(&self) -> Units {
        self.tables.values().copied().fold(Units::default(), Add::add)
    }

    /// Attempts of one operation.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or_default()
    }
}

impl Add for Units {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            write: self.write + other.write,
            conflicts: self.conflicts + other.conflicts,
        }
    }
}

impl AddAssign for Units {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Units {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            read: self.read - earlier.read,
            write: self.write - earlier.write,
            conflicts: self.conflicts - earlier.conflicts,
        }
    }
}

impl Sub<&Self> for Usage {
    type Output = Self;
    /// What was spent since `earlier`, a snapshot of the same meter.
    fn sub(mut self, earlier: &Self) -> Self {
        for (table, units) in &mut self.tables {
            *units = *units - earlier.of(table);
        }
        for (operation, calls) in &mut self.calls {
            *calls = calls.saturating_sub(earlier.calls_of(operation));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed(table: &str, units: f64) -> ConsumedCapacity {
        ConsumedCapacity::builder().table_name(table).capacity_units(units).build()
    }

    #[test]
    fn what_is_spent_between_two_snapshots_is_their_difference() {
        let meter = Meter::default();
        meter.called("GetItem");
        meter.read(Some(&consumed("a", 0.5)));
        let before = meter.snapshot();
        meter.called("GetItem");
        meter.called("PutItem");
        meter.read(&[consumed("a", 1.5), consumed("b", 1.0)]);
        meter.clone().wrote(Some(&consumed("arn:aws:dynamodb:eu-west-1:1:table/a", 3.0)));
        meter.conflicted("a");
        meter.read(None);

        let spent = meter.snapshot() - &before;
        assert_eq!(spent.of("a"), Units { read: 1.5, write: 3.0, conflicts: 1.0 });
        assert_eq!(spent.total(), Units { read: 2.5, write: 3.0, conflicts: 1.0 });
        assert_eq!((spent.calls_of("GetItem"), spent.calls_of("PutItem")), (1, 1));
        assert_eq!(meter.snapshot() - &Usage::default(), meter.snapshot());
    }
}
