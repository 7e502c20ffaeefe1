//! What a view has not taken yet.

use std::sync::Arc;

use fanfold::Time;

use crate::subscription::Deliveries;
use crate::transit::{Notification, Shard};

/// The notifications that a subscriber has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many there are.
    pub items: u64,
    /// The age of the oldest, in milliseconds, from the time of its first entry; 0 if there is none.
    pub oldest_ms: u64,
}

impl Deliveries {
    /// What this subscriber has not taken of the topic's log. A message whose delivery is under way
    /// is not taken yet, and neither are those behind it.
    pub(crate) fn waiting(&self, log: &Shard<Arc<Notification>>, now: Time) -> Waiting {
        let from = self.passed().max(log.start());
        let Some((_, oldest)) = log.read(from, 1).pop() else { return Waiting::default() };
        let times = oldest.commits.iter().filter_map(|commit| commit.entries.as_ref());
        let time = times.filter_map(|entries| Some(entries.first()?.time)).min();
        let items = log.end().0.saturating_sub(from.0);
        Waiting { items, oldest_ms: time.map_or(0, |time| now.since_ms(time)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key::HashKey;
    use crate::transit::Position;

    #[test]
    fn what_is_behind_the_subscriber_waits() {
        let log: Shard<Arc<Notification>> = Shard::new(Arc::default());
        let deliveries = Deliveries::default();
        assert_eq!(deliveries.waiting(&log, Time(9)), Waiting::default());
        for _ in 0..3 {
            log.append(HashKey(0), 1, Arc::new(Notification { commits: Vec::new() }));
        }
        assert_eq!(deliveries.waiting(&log, Time(9)).items, 3);
        log.trim(Position(2));
        assert_eq!(deliveries.waiting(&log, Time(9)).items, 1);
    }
}
