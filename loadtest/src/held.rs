//! Holds commands back: while a command waits for its retry, its origin sends nothing new.
//!
//! Otherwise a later command would overtake it, and after 2,048 of them its id would be below the
//! window, and lost. Commands that are under way at the same time may still overtake one another:
//! the options keep them far below 2,048.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::workload::{ClientCommand, Origin};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) due: Duration,
    pub(crate) command: ClientCommand,
}

#[derive(Debug, Default)]
struct OriginQueue {
    /// The number of commands that wait for a retry or are retried now.
    retrying: usize,
    waiting: VecDeque<Waiting>,
}

/// The origins with commands that wait.
#[derive(Debug, Default)]
pub(crate) struct Held {
    queues: HashMap<Origin, OriginQueue>,
}

impl Held {
    /// Notes that a command waits for its first retry.
    pub(crate) fn retry(&mut self, command: &ClientCommand) {
        self.queues.entry(command.origin()).or_default().retrying += 1;
    }

    /// Notes that a retried command has its final answer. Returns the commands that need not wait
    /// any more.
    pub(crate) fn settled(&mut self, command: &ClientCommand) -> VecDeque<Waiting> {
        if let Entry::Occupied(mut queue) = self.queues.entry(command.origin()) {
            queue.get_mut().retrying -= 1;
            if queue.get().retrying == 0 {
                return queue.remove().waiting;
            }
        }
        VecDeque::new()
    }

    /// Takes those of `commands` that have to wait, and leaves the others.
    pub(crate) fn hold(&mut self, commands: &mut Vec<ClientCommand>, due: Duration) {
        if self.queues.is_empty() {
            return;
        }
        commands.retain(|command| match self.queues.get_mut(&command.origin()) {
            Some(queue) => {
                queue.waiting.push_back(Waiting { due, command: command.clone() });
                false
            }
            None => true,
        });
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<Waiting> {
        self.queues.values_mut().flat_map(|queue| queue.waiting.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Openings;
    use crate::workload::tests::spec;

    #[test]
    fn commands_wait_in_order_until_all_before_them_are_settled() {
        // Three commands of each of two origins.
        let all = Openings::new(&spec()).of(0..2).expect("they are the ledger's");
        let (one, other) = (&all[..3], &all[3..]);
        let mut held = Held::default();
        let hold = |held: &mut Held, commands: &[ClientCommand], due| {
            let mut commands = commands.to_vec();
            held.hold(&mut commands, Duration::from_secs(due));
            commands
        };
        assert_eq!(hold(&mut held, &all, 0), all);
        held.retry(&one[0]);
        held.retry(&one[1]);
        assert_eq!(
            hold(&mut held, &[one[2].clone(), other[0].clone(), one[0].clone()], 1),
            &other[..1]
        );
        assert_eq!(hold(&mut held, &one[1..2], 2), []);
        assert_eq!(held.settled(&one[0]), []);
        assert_eq!(held.settled(&other[0]), []);
        let waiting =
            |at: usize, due| Waiting { command: one[at].clone(), due: Duration::from_secs(due) };
        let expected = [waiting(2, 1), waiting(0, 1), waiting(1, 2)];
        assert_eq!(held.settled(&one[1]), expected);
        assert_eq!(hold(&mut held, one, 3), one);
    }
}
