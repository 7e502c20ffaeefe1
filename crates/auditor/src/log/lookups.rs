//! Looks up some ids at the end, and compares the answers with the entries of the log. A client
//! that lost an answer finds the outcome of its command in this way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::LogAudit;
use crate::exact::is_same;
use crate::invariant::Invariant::F4;
use crate::reader::{Found, ReadError};

/// Lookups in a log.
const LOOKUPS_MAX: usize = 4;
/// How long a lookup waits for commands without entries. It is short, since the log was just read
/// to its end.
const WAIT: Duration = Duration::from_secs(10);

/// Ids to look up, drawn at random from those of the log.
#[derive(Debug)]
pub(super) struct Lookups {
    random: SmallRng,
    offered: usize,
    /// Origin, id, and seq of the first entry.
    drawn: Vec<(String, u64, u64)>,
}

impl Lookups {
    pub(super) fn new(random: SmallRng) -> Self {
        Self { random, offered: 0, drawn: Vec::new() }
    }

    /// Offers an id at its first entry. Each id has the same chance to be drawn.
    pub(super) fn offer(&mut self, origin: &str, id: u64, seq: u64) {
        self.offered += 1;
        let at = match self.drawn.len() {
            LOOKUPS_MAX => self.random.random_range(0..self.offered),
            free => free,
        };
        if at < LOOKUPS_MAX {
            let drawn = (origin.to_owned(), id, seq);
            match self.drawn.get_mut(at) {
                Some(place) => *place = drawn,
                None => self.drawn.push(drawn),
            }
        }
    }
}

impl LogAudit<'_> {
    /// Looks up the drawn ids, and one id that was never sent.
    pub(super) async fn look_up(&mut self) -> Result<(), ReadError> {
        let mut drawn = std::mem::take(&mut self.lookups.drawn);
        drawn.sort_unstable_by_key(|(_, _, seq)| *seq);
        // A target compares the window with its clock, as for a command that arrives now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now).unwrap_or(u64::MAX);
        for (origin, id, seq) in &drawn {
            let Some(window) = self.windows.get_mut(origin) else { continue };
            window.forget_if_idle(self.time);
            let is_known = *id > window.floor();
            let may_be_lost = !is_known || window.is_idle(now_ms);
            let found = self.find(origin, *id).await?;
            self.done.lookups += 1;
            let wrong = match found {
                // A target may still know an id that the window has lost.
                Found::Entry(found) => {
                    let reader = self.task.reader;
                    let entry = reader.entry(self.task.log, *seq, Instant::now()).await?;
                    let is_it = entry.as_deref().is_some_and(|entry| is_same(entry, &found));
                    (!is_it).then(|| format!("{found}"))
                }
                Found::BelowWindow if may_be_lost => None,
                other => Some(other.shown()),
            };
            if let Some(found) = wrong {
                let should =
                    if is_known { "the entry" } else { "410, since it is below the window" };
                let what = format!(
                    "a lookup of id {id} of {origin} returns {found}, and should return {should}"
                );
                self.done.findings.add(F4, self.task.log, Some(*seq), what);
            }
        }
        let ours = drawn.iter().find(|(origin, ..)| {
            self.task.own.is_complete && origin.starts_with(&self.task.own.prefix)
        });
        if let Some((origin, ..)) = ours
            && let Some(window) = self.windows.get(origin)
        {
            let (unsent, is_idle) = (window.highest() + 1, window.is_idle(now_ms));
            match self.find(origin, unsent).await? {
                Found::Unknown => {}
                Found::BelowWindow if is_idle => {}
                found => {
                    let what = format!(
                        "a lookup of id {unsent} of {origin} returns {}, and the id was never sent",
                        found.shown()
                    );
                    self.done.findings.add(F4, self.task.log, None, what);
                }
            }
        }
        Ok(())
    }

    async fn find(&self, origin: &str, id: u64) -> Result<Found<Box<RawValue>>, ReadError> {
        let (user, client) = match origin.split_once('/') {
            Some((user, client)) => (user, Some(client)),
            None => (origin, None),
        };
        let reader = self.task.reader;
        reader.find(self.task.log, user, client, id, Instant::now() + WAIT).await
    }
}
