//! Compares documents and rows with the fold of the log's entries.

use std::collections::BTreeMap;

use fanfold::entry::{Event, Outcome};
use fanfold::host::body::head::decode_document;
use fanfold::view::AnyRecorded;
use fanfold::{DocumentId, Entry, RowKey, Seq, StateKey};

use super::{Ailment, Doctor, Examined, OfView};
use crate::ports::Unavailable;

/// Documents per read. Source: our choice; the port's limit is 1,000.
const DOCUMENTS_PER_READ: usize = 100;

impl Doctor {
    /// Compares the stored documents with the fold of their events.
    pub(super) async fn compare_documents(
        &self,
        found: &mut Examined,
        head: Seq,
        entries: &[Entry],
    ) -> Result<(), Unavailable> {
        let Some(service) = self.services.get(found.log.service()) else { return Ok(()) };
        let mut documents: BTreeMap<DocumentId, Vec<(Seq, &Event)>> = BTreeMap::new();
        for entry in entries {
            let Outcome::Accepted(events) = &entry.outcome else { continue };
            for event in events {
                documents.entry(event.document.clone()).or_default().push((entry.seq, event));
            }
        }
        let (version, tail) = (service.document_version(), found.tail);
        let all: Vec<(DocumentId, Vec<(Seq, &Event)>)> = documents.into_iter().collect();
        for some in all.chunks(DOCUMENTS_PER_READ) {
            let keys: Vec<StateKey> =
                some.iter().map(|(id, _)| StateKey::document(version, id)).collect();
            let stored = self.ports.state.get(&found.log, &keys).await;
            let Some(stored) = found.note(None, stored)? else { continue };
            for ((id, events), stored) in some.iter().zip(stored) {
                let due = events.iter().rev().find(|(at, _)| *at <= head).map(|(at, _)| *at);
                let is_missing =
                    due.is_some_and(|due| stored.as_ref().is_none_or(|item| item.seq < due));
                if is_missing {
                    let detail =
                        format!("the document `{id}` is older than the head, which is at {head}");
                    found.add(Ailment::DocumentWrong, None, detail);
                    continue;
                }
                // One that was stored since the entries were read cannot be compared.
                let Some(item) = stored.filter(|item| item.seq <= tail) else { continue };
                let folded = events
                    .iter()
                    .take_while(|(at, _)| *at <= item.seq)
                    .try_fold(None, |document, (_, event)| service.fold(document, event).map(Some));
                let expected =
                    folded.ok().flatten().map(|document| service.encode_document(&document));
                found.count_format("document", &item.body);
                let stored = decode_document(&item.body);
                if let Err(error) = &stored
                    && found.add_newer(&format!("the document `{id}`"), error)
                {
                    continue;
                }
                let is_same = match (expected, stored) {
                    (Some(Ok(expected)), Ok(stored)) => is_equal(&expected, &stored),
                    _ => false,
                };
                if !is_same {
                    let detail = format!(
                        "the document `{id}` at entry {} is not the fold of its events",
                        item.seq
                    );
                    found.add(Ailment::DocumentWrong, None, detail);
                }
            }
        }
        Ok(())
    }

    /// Compares a view with the journal.
    pub(super) fn compare(&self, found: &mut Examined, of: OfView, entries: Option<&[Entry]>) {
        let OfView { view, cursor, parked_at, rows } = of;
        let (name, tail) = (view.name(), found.tail);
        if cursor > tail {
            let detail = format!("the cursor is at {cursor}, and the log's last entry is {tail}");
            found.add(Ailment::CursorAhead, Some(name), detail);
            return;
        }
        let (Some(entries), Some(rows)) = (entries, rows) else { return };
        let log = found.log.clone();
        let (mut recorded, mut touched): (Vec<AnyRecorded>, BTreeMap<RowKey, Vec<usize>>) =
            Default::default();
        // From here on rows cannot be computed.
        let mut end = parked_at;
        for entry in entries {
            if end.is_some_and(|end| entry.seq >= end) {
                break;
            }
            let read = view.read(&log, entry).and_then(|read| match read {
                Some(read) => view.rows(&read).map(|rows| Some((read, rows))),
                None => Ok(None),
            });
            match read {
                Ok(None) => {}
                Ok(Some((read, keys))) => {
                    for key in keys {
                        touched.entry(key).or_default().push(recorded.len());
                    }
                    recorded.push(read);
                }
                // The view is parked there, or will be, or another build has applied it.
                Err(_) => end = Some(entry.seq),
            }
        }
        let can_compute = |seq: Seq| end.is_none_or(|end| seq < end);
        for (key, row) in rows.iter().filter(|(_, row)| can_compute(row.seq)) {
            let Some(entries) = touched.get(key) else {
                let is_read = recorded.last().is_some_and(|last| last.seq >= row.seq);
                if is_read {
                    let detail =
                        format!("the row `{key}` is of entry {}, which does not make it", row.seq);
                    found.add(Ailment::RowUnknown, Some(name), detail);
                }
                continue;
            };
            found.rows += 1;
            let up_to = |seq: Seq| -> Vec<&AnyRecorded> {
                let of_row = entries.iter().map(|at| &recorded[*at]);
                of_row.take_while(|entry| entry.seq <= seq).collect()
            };
            let folded = up_to(row.seq);
            let is_at_entry = folded.last().is_some_and(|last| last.seq == row.seq);
            // Parts above the cursor are written before the cursor moves.
            let expected = match folded.is_empty() {
                true => Ok(None),
                false => view.fold(key, None, &folded),
            };
            let is_same = match (&expected, &row.body) {
                (Ok(Some(expected)), Some(body)) => is_equal(expected, body),
                (Ok(None), None) => true,
                _ => false,
            };
            let is_due = up_to(cursor).last().is_some_and(|last| last.seq > row.seq);
            if !is_same || !is_at_entry {
                let detail =
                    format!("the row `{key}` at entry {} is not the fold of its entries", row.seq);
                found.add(Ailment::RowWrong, Some(name), detail);
            } else if is_due {
                let detail = format!(
                    "the row `{key}` is at entry {}, and the cursor {cursor} is past a later one",
                    row.seq
                );
                found.add(Ailment::RowWrong, Some(name), detail);
            }
        }
        // Another build may have removed a row at an entry that this one cannot read.
        let absent =
            touched.iter().filter(|(key, _)| can_compute(cursor) && !rows.contains_key(*key));
        for (key, entries) in absent {
            let of_row: Vec<&AnyRecorded> = entries.iter().map(|at| &recorded[*at]).collect();
            let applied = of_row.partition_point(|entry| entry.seq <= cursor);
            // An entry above the cursor may have removed the row meanwhile.
            let is_there = |n: usize| matches!(view.fold(key, None, &of_row[..n]), Ok(Some(_)));
            if applied > 0 && (applied..=of_row.len()).all(is_there) {
                let detail =
                    format!("there is no row `{key}`, and the cursor {cursor} is past its entries");
                found.add(Ailment::RowMissing, Some(name), detail);
            }
        }
    }
}

/// Whether two rows are the same JSON.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    a == b || json(a).is_some_and(|a| json(b) == Some(a))
}
