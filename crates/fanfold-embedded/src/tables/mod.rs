//! The ports that keep all their data in tables: journal, state, parked, views and their registry, dead letters.
//!
//! | table | key | value, big-endian |
//! |---|---|---|
//! | `slots` | bucket (1 byte), log | `[seq u64][n u64][at u64][token u128][closed u8]` |
//! | `journal` | log, 0, first seq (u64) | `[n u64][at u64][nonce u128][body]` |
//! | `state` | log, 0, state key | `[seq u64][body]` |
//! | `parked` | log, 0, seq (u64), identity | body |
//! | `dead-letters` | view, 0, id (u64) | body |
//! | `view-NAME-vVERSION` | log, 0, `c` | the cursor: `[seq u64]`, then JSON if it has rare fields |
//! | | log, 0, `r`, row key | `[seq u64][expires u64][1][body]`; a tombstone ends with `[0]` |
//! | | log, 0, `t`, expires (u64), row key | empty: finds the expired tombstones |
//! | | 0, log | empty: finds the logs for which the view is parked |
//! | `meta` | `done`, `run`, `gaps`, `shards`, `app` | see `store`, `recovery`, `ports`, `owner` |
//! | | `view/NAME` | the announced versions of a view |
//! | | `action/ID` | what an operator did |
//!
//! No name has a zero byte, so the items of a log stand together, in order.

mod dead_letters;
mod journal;
mod parked;
mod state;
mod timeline;
mod view;
mod view_registry;

use bytes::Bytes;
use fanfold::LogId;
use fanfold_pipeline::ports::Unavailable;

pub use dead_letters::StoredDeadLetters;
pub use journal::StoredJournal;
pub use parked::StoredParked;
pub use state::StoredState;
pub(crate) use timeline::ACTIONS_MAX;
pub use timeline::StoredTimeline;
pub use view::StoredView;
pub use view_registry::StoredViewRegistry;

/// The most keys that one read takes (see the ports).
const KEYS_MAX: usize = 1_000;

/// The key `[log][0]`, followed by the parts of `rest`.
fn key<const N: usize>(log: &LogId, rest: [&[u8]; N]) -> Bytes {
    let log = log.as_str().as_bytes();
    let len = log.len() + 1 + rest.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(len);
    key.extend_from_slice(log);
    key.push(0);
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key.into()
}

/// The key after all items of a log.
fn end(log: &LogId) -> Bytes {
    [log.as_str().as_bytes(), &[1]].concat().into()
}

/// The error for a call beyond a limit of the port.
pub(crate) fn beyond_limit(hop: &'static str, found: usize, max: usize, what: &str) -> Unavailable {
    Unavailable::Failed { hop, message: format!("{found} {what}, at most {max} are taken") }
}
