//! What became of accepted commands: their entries, and whether each was done.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use fanfold::LogId;
use fanfold_http::limits::{PAGE_MAX, WAIT_MS_EVERYWHERE};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Target};
use crate::retry::Backoff;

/// Seqs this close to each other are read in one page: what lies between costs less than another
/// request.
const GAP_MAX: u64 = 8;
/// Between two looks at an entry that is not there yet, if the server did not wait itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an entry says of its command.
#[derive(Deserialize)]
struct Outcome<'a> {
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
struct Place {
    seq: u64,
}

/// Why the command of this entry was not done, if so. A command that its service rejects is done,
/// and so is a duplicate: its first entry has its outcome.
pub fn undone(entry: &RawValue) -> Option<&'static str> {
    let Ok(Outcome { status, code }) = serde_json::from_str(entry.get()) else {
        return Some("its entry is not understood");
    };
    match (&*status, code.as_deref()) {
        ("rejected", Some("id_reused")) => {
            Some("`id_reused`: its id was used for another command before")
        }
        ("accepted" | "rejected" | "duplicate", _) => None,
        ("stale", _) => Some(
            "`stale`: its id is so far below others that were sent that whether it was done before is unknown",
        ),
        ("faulted", _) => Some("`faulted`: its service failed on it"),
        ("lost", _) => Some("`lost`: an operator has given it up"),
        _ => Some("its entry has a status that this version does not know"),
    }
}

/// The entries at these seqs of a log, which ascend. Those that are not there by `until` are left
/// out, and so is all behind them.
pub fn entries(
    client: &Client,
    log: &LogId,
    seqs: &[u64],
    until: Instant,
) -> anyhow::Result<Vec<Box<RawValue>>> {
    let Some(last) = seqs.last() else { return Ok(Vec::new()) };
    let path =
        |more: &[&str]| Target::path(&[&["logs", log.service(), log.partition()], more].concat());
    let left = || until.saturating_duration_since(Instant::now());
    let get = |target: &Target| client.get_patiently(target, &mut Backoff::within(left()), |_| ());
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
            break answer.read::<Place>()?.seq;
        }
        sleep(LOOK_AGAIN);
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
            let Place { seq } = serde_json::from_str(entry.get())?;
            if seqs.get(found.len()) == Some(&seq) {
                found.push(entry.to_owned());
            }
        }
        if found.len() == before {
            bail!("{} shows no entry {from} of {log}", client.url());
        }
    }
    Ok(found)
}
