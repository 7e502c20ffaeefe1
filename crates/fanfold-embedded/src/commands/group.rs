//! The format of a group in the command log: changes, one after another.
//!
//! `[log length u8][log][last u64][n u32][at u64][token u128][body length u32][body]`, big-endian.

use bytes::{Buf, Bytes};
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Change, Token};

/// Bytes of a change beside its log and body.
const HEADER_BYTES: usize = 1 + 8 + 4 + 8 + 16 + 4;

/// Appends a change to a group.
pub(super) fn write(group: &mut Vec<u8>, change: &Change) {
    let log = change.log.as_str().as_bytes();
    group.reserve(HEADER_BYTES + log.len() + change.body.len());
    // Fits: a log's name has fewer than 200 bytes, see `fanfold::names`.
    group.push(log.len().min(usize::from(u8::MAX)) as u8);
    group.extend_from_slice(log);
    group.extend(change.last.0.to_be_bytes());
    group.extend((change.n as u32).to_be_bytes());
    group.extend(change.at.0.to_be_bytes());
    group.extend(change.token.0.to_be_bytes());
    group.extend((change.body.len() as u32).to_be_bytes());
    group.extend_from_slice(&change.body);
}

/// The changes of a group. `None`: the bytes are not a group.
pub(super) fn read(mut group: Bytes) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while group.has_remaining() {
        let log = usize::from(group.try_get_u8().ok()?);
        if group.remaining() < log + HEADER_BYTES - 1 {
            return None;
        }
        let log = group.split_to(log);
        let log: LogId = std::str::from_utf8(&log).ok()?.parse().ok()?;
        let last = Seq(group.get_u64());
        let n = u64::from(group.get_u32());
        let at = Time(group.get_u64());
        let token = Token(group.get_u128());
        let body = group.get_u32() as usize;
        if group.remaining() < body {
            return None;
        }
        let body = group.split_to(body);
        changes.push(Change { log, last, n, at, token, body });
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_group_is_read_back(
            changes in prop::collection::vec(
                ("[a-z]{1,32}/org:[a-zA-Z0-9.:@=+-]{1,120}", 1_u64.., 0..500_u64, any::<u64>(),
                 any::<u128>(), prop::collection::vec(any::<u8>(), 0..300)),
                0..20,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let change = |(log, last, n, at, token, body): (String, u64, u64, u64, u128, Vec<u8>)| {
                let log = log.parse().ok()?;
                let (last, at, token) = (Seq(last), Time(at), Token(token));
                Some(Change { log, last, n, at, token, body: body.into() })
            };
            let changes: Vec<Change> = changes.into_iter().filter_map(change).collect();
            let mut group = Vec::new();
            changes.iter().for_each(|change| write(&mut group, change));
            prop_assert_eq!(read(group.clone().into()), Some(changes.clone()));
            // A group that is cut off has fewer changes, or cannot be read.
            if !group.is_empty() {
                let cut = &group[..cut.index(group.len())];
                let found = read(Bytes::copy_from_slice(cut));
                prop_assert!(found.is_none_or(|found| found.len() < changes.len()));
            }
        }
    }
}
