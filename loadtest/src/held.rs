//! Who waits: an origin of whose commands one is to be sent again sends nothing new until that is in.
//!
//! A later command that passed it would take its place, and after 2,048 of them its id would be
//! below what the log remembers, and lost. Commands that are under way at the same time may still
//! overtake one another: the options keep those far below 2,048.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::workload::{Order, Origin};

/// A command that waits, with its intended start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) due: Duration,
    pub(crate) order: Order,
}

/// What one origin has.
#[derive(Debug, Default)]
struct Line {
    /// Commands that are to be sent again, or are under way again.
    again: usize,
    /// Commands that wait for those, in order.
    waiting: VecDeque<Waiting>,
}

/// The origins that wait.
#[derive(Debug, Default)]
pub(crate) struct Held {
    lines: HashMap<Origin, Line>,
}

impl Held {
    /// This command is to be sent again, for the first time.
    pub(crate) fn refused(&mut self, order: &Order) {
        self.lines.entry(order.origin()).or_default().again += 1;
    }

    /// A command that was to be sent again is settled. Returns what need not wait any more.
    pub(crate) fn settled(&mut self, order: &Order) -> VecDeque<Waiting> {
        if let Entry::Occupied(mut line) = self.lines.entry(order.origin()) {
            line.get_mut().again -= 1;
            if line.get().again == 0 {
                return line.remove().waiting;
            }
        }
        VecDeque::new()
    }

    /// Takes those of `orders` that have to wait, and leaves the others.
    pub(crate) fn hold(&mut self, orders: &mut Vec<Order>, due: Duration) {
        if self.lines.is_empty() {
            return;
        }
        orders.retain(|order| match self.lines.get_mut(&order.origin()) {
            Some(line) => {
                line.waiting.push_back(Waiting { due, order: *order });
                false
            }
            None => true,
        });
    }

    /// All that waits, which then waits no more.
    pub(crate) fn take_waiting(&mut self) -> Vec<Waiting> {
        self.lines.values_mut().flat_map(|line| line.waiting.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn what_waits_goes_on_in_order_once_all_before_it_is_settled() {
        // Three commands of each of two origins.
        let all = Workload::openings(0..2);
        let (one, other) = (&all[..3], &all[3..]);
        let mut held = Held::default();
        let hold = |held: &mut Held, orders: &[Order], due| {
            let mut orders = orders.to_vec();
            held.hold(&mut orders, Duration::from_secs(due));
            orders
        };
        assert_eq!(hold(&mut held, &all, 0), all);
        held.refused(&one[0]);
        held.refused(&one[1]);
        assert_eq!(hold(&mut held, &[one[2], other[0], one[0]], 1), [other[0]]);
        assert_eq!(hold(&mut held, &[one[1]], 2), []);
        assert_eq!(held.settled(&one[0]), []);
        assert_eq!(held.settled(&other[0]), []);
        let waiting = |order, due| Waiting { order, due: Duration::from_secs(due) };
        let expected = [waiting(one[2], 1), waiting(one[0], 1), waiting(one[1], 2)];
        assert_eq!(held.settled(&one[1]), expected);
        assert_eq!(hold(&mut held, one, 3), one);
    }
}
