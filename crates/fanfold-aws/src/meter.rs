//! The costs of calls: capacity units per table, and calls per operation.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// The sum of the costs of all calls. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Usage>>);

/// A sum of costs. The difference of two snapshots of a meter is the cost between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Capacity units per table, with its indexes.
    pub tables: BTreeMap<String, Units>,
    /// Attempts per operation of AWS, such as `PutItem`, with those that failed.
    pub calls: BTreeMap<&'static str, u64>,
}

/// Capacity of one table, in DynamoDB's units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    /// Read units: one for 4 KB read strongly consistent, half of one for 4 KB read eventually consistent.
    pub read: f64,
    /// Write units: one for 1 KB.
    pub write: f64,
    /// Writes whose condition failed. DynamoDB bills at least one unit for each, by the size of the
    /// item, but does not report it, so `write` does not contain it.
    pub conflicts: f64,
}

impl Meter {
    /// All costs since the meter was made.
    pub fn snapshot(&self) -> Usage {
        self.usage().clone()
    }

    /// Counts an attempt of a call.
    pub(crate) fn called(&self, operation: &'static str) {
        *self.usage().calls.entry(operation).or_default() += 1;
    }

    /// Adds the capacity that a read consumed.
    pub(crate) fn read<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        for (table, units) in consumed.into_iter().filter_map(total) {
            self.add(table, Units { read: units, ..Units::default() });
        }
    }

    /// Adds the capacity that a write consumed.
    pub(crate) fn wrote<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        for (table, units) in consumed.into_iter().filter_map(total) {
            self.add(table, Units { write: units, ..Units::default() });
        }
    }

    /// Counts a write whose condition failed.
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

    /// No holder of the lock panics between two changes, so a poisoned sum is still right.
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table and the total units of a call. Only transactions both read and write, and there are none.
fn total(consumed: &ConsumedCapacity) -> Option<(&str, f64)> {
    Some((table_name(consumed.table_name()?), consumed.capacity_units()?))
}

/// The name of a table that may be given by its ARN.
fn table_name(named: &str) -> &str {
    named.rsplit_once("table/").map_or(named, |(_, name)| name)
}

impl Usage {
    /// The units of one table; zero if no call used it.
    pub fn of(&self, table: &str) -> Units {
        self.tables.get(table).copied().unwrap_or_default()
    }

    /// The units of all tables together.
    pub fn total(&self) -> Units {
        self.tables.values().copied().fold(Units::default(), Add::add)
    }

    /// The attempts of one operation.
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
    /// The costs since `earlier`, a snapshot of the same meter.
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
    fn the_difference_of_two_snapshots_is_the_cost_between_them() {
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
