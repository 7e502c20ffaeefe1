//! Outcomes of accepted commands: reads their entries, and finds out whether each command was done.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use fanfold::LogId;
use fanfold_http::limits::{PAGE_MAX, WAIT_MS_EVERYWHERE};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Target};
use crate::retry::Backoff;

/// Entries whose seqs are no further apart than this are read in one page. Source: our choice; the
/// entries between cost less than another request.
const GAP_MAX: u64 = 8;
/// Pause before the next request for an entry that does not exist yet, in case the server does not
/// wait.
const POLL_EVERY: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
struct EntryStatus<'a> {
    #[serde(borrow)]
    status: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    code: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct SeqOf {
    seq: u64,
}

/// Why the command of this entry was not done; `None` if it was. A command that its service rejects
/// counts as done, and so does a duplicate, since its first entry has the outcome.
pub(crate) fn failure(entry: &RawValue) -> Option<&'static str> {
    let Ok(EntryStatus { status, code }) = serde_json::from_str(entry.get()) else {
        return Some("its entry is not understood");
    };
    match (&*status, code.as_deref()) {
        ("rejected", Some("id_reused")) => {
            Some("`id_reused`: its id was used for another command before")
        }
        ("accepted" | "rejected" | "duplicate", _) => None,
        ("stale", _) => Some(
            "`stale`: its id is so far below later ids that the log does not remember whether it was done",
        ),
        ("faulted", _) => Some("`faulted`: its service failed on it"),
        ("lost", _) => Some("`lost`: an operator gave it up"),
        _ => Some("its entry has a status that this version does not know"),
    }
}

/// The entries of a log at these seqs, which ascend. Stops before the first seq that has no entry
/// by `until`.
pub(crate) fn entries(
    client: &Client,
    log: &LogId,
    seqs: &[u64],
    until: Instant,
) -> anyhow::Result<Vec<Box<RawValue>>> {
    let Some(last) = seqs.last() else { return Ok(Vec::new()) };
    let path =
        |more: &[&str]| Target::path(&[&["logs", log.service(), log.partition()], more].concat());
    let left = || until.saturating_duration_since(Instant::now());
    let get =
        |target: &Target| client.get_with_retries(target, &mut Backoff::within(left()), |_| ());
    let tail = loop {
        let wait_ms = u64::try_from(left().as_millis())
            .map_or(WAIT_MS_EVERYWHERE, |ms| ms.min(WAIT_MS_EVERYWHERE));
        let answer = get(&path(&[&last.to_string()]).query("wait", wait_ms))?;
        if !answer.is_pending() {
            let entry = answer.read::<Box<RawValue>>()?;
            if seqs.len() == 1 {
                return Ok(vec![entry]);
            }
            break *last;
        }
        if left().is_zero() {
            break answer.read::<SeqOf>()?.seq;
        }
        sleep(POLL_EVERY);
    };
    let seqs = &seqs[..seqs.partition_point(|seq| *seq <= tail)];
    let mut found: Vec<Box<RawValue>> = Vec::with_capacity(seqs.len());
    while found.len() < seqs.len() {
        let before = found.len();
        let from = seqs[before];
        let close = |pair: &&[u64]| pair[1] - pair[0] <= GAP_MAX && pair[1] - from < PAGE_MAX;
        let to = seqs[before..].windows(2).take_while(close).last().map_or(from, |pair| pair[1]);
        let answer = get(&path(&[]).query("from", from).query("limit", to - from + 1))?;
        for entry in answer.read::<Page<'_>>()?.entries {
            let SeqOf { seq } = serde_json::from_str(entry.get())?;
            if seqs.get(found.len()) == Some(&seq) {
                found.push(entry.to_owned());
            }
        }
        if found.len() == before {
            bail!("{} does not show the entry at seq {from} of {log}", client.url());
        }
    }
    Ok(found)
}
