//! The invariants, which any test can check on the stored and published data of a log.

use std::collections::BTreeMap;

use fanfold::entry::{Event, Outcome};
use fanfold::host::body::head::{Head, Prev, decode_document, decode_window};
use fanfold::host::body::notification::entry_kinds;
use fanfold::host::window::Window;
use fanfold::view::AnyRecorded;
use fanfold::{AnyService, DocumentId, Entry, LogId, Origin, RowKey, Seq, StateKey};
use fanfold_pipeline::ports::ViewTable;

use crate::world::{World, services, views};

/// The documents and windows that a log folds to, up to some entry.
#[derive(Default)]
struct Folded {
    documents: BTreeMap<DocumentId, Vec<(Seq, Event)>>,
    windows: BTreeMap<Origin, (Window, Seq)>,
    prev: Prev,
}

impl Folded {
    fn of(log: &LogId, entries: &[Entry], to: Seq) -> Self {
        let mut folded = Self::default();
        for entry in entries.iter().take_while(|entry| entry.seq <= to) {
            for kind in entry_kinds(log.service(), entry) {
                folded.prev.insert(kind, entry.seq);
            }
            if entry.outcome.uses_id() {
                let (window, last) = folded.windows.entry(entry.origin.clone()).or_default();
                window.insert(entry.id, entry.seq, entry.time);
                *last = entry.seq;
            }
            if let Outcome::Accepted(events) = &entry.outcome {
                for event in events {
                    let of_document = folded.documents.entry(event.document.clone());
                    of_document.or_default().push((entry.seq, event.clone()));
                }
            }
        }
        folded
    }
}

impl World {
    /// F3, F4, F6 of documents and windows, and F5 up to the head.
    pub(crate) async fn audit(&self, log: &LogId) {
        let entries = self.entries(log).await;
        let mut expected = Seq(1);
        for commit in self.commits(log).await {
            assert_eq!(commit.first, expected, "F3");
            expected = commit.last().next();
        }
        let mut used = BTreeMap::new();
        for entry in &entries {
            let identity = (entry.origin.clone(), entry.id);
            match entry.outcome {
                Outcome::Duplicate { of } => assert_eq!(used.get(&identity), Some(&of), "F4"),
                _ if entry.outcome.uses_id() => {
                    let before = used.insert(identity, entry.seq);
                    assert_eq!(before, None, "F4 at {}", entry.seq);
                }
                _ => {}
            }
        }
        self.audit_state(log, &entries).await;
    }

    async fn audit_state(&self, log: &LogId, entries: &[Entry]) {
        let services = services();
        let service: &dyn AnyService = &**services.get(log.service()).expect("a service");
        let last = entries.last().map_or(Seq::ZERO, |entry| entry.seq);
        let version = service.document_version();
        let all = Folded::of(log, entries, last);
        for (id, events) in &all.documents {
            let fold = |to: Seq| {
                let events = events.iter().take_while(|(at, _)| *at <= to);
                events.fold(None, |doc, (_, event)| Some(service.fold(doc, event).expect("folds")))
            };
            let whole = fold(last).expect("it was touched");
            if let Some(stored) = self.state(log, StateKey::document(version, id)).await {
                let folded = fold(stored.seq).unwrap_or(whole);
                let json = service.encode_document(&folded).expect("JSON");
                assert!(*decode_document(&stored.body).expect("a document") == json, "F6: {id}");
            }
        }
        let Some(item) = self.state(log, StateKey::head(version)).await else { return };
        let head = Head::decode(&item.body).expect("a head");
        let to_head = Folded::of(log, entries, item.seq);
        assert_eq!(head.prev, to_head.prev);
        for (id, events) in &to_head.documents {
            let touched = events.last().expect("touched").0;
            let stored = self.state(log, StateKey::document(version, id)).await;
            assert!(stored.is_some_and(|s| s.seq >= touched), "F6: the head passes unstored {id}");
        }
        for (origin, (window, touched)) in &to_head.windows {
            let stored = match &head.windows {
                Some(windows) => windows.get(origin).cloned(),
                None => {
                    let item = self.state(log, StateKey::window(version, origin)).await;
                    let item = item.filter(|item| item.seq >= *touched);
                    // The window may be newer than the head.
                    let seq = item.as_ref().map_or(Seq::ZERO, |item| item.seq);
                    let there = Folded::of(log, entries, seq).windows.remove(origin);
                    let stored = item.map(|item| decode_window(&item.body).expect("a window"));
                    assert_eq!(
                        stored,
                        there.map(|(window, _)| window),
                        "F6: the window of {origin}"
                    );
                    continue;
                }
            };
            assert_eq!(stored.as_ref(), Some(window), "F6: the window of {origin}");
        }
        let published = self.published(log);
        for commit in self.commits(log).await.iter().filter(|c| c.last() <= item.seq) {
            let is_published = published.contains(&(commit.first.0, commit.last().0));
            assert!(
                is_published,
                "F5: the head passes {}, which was never published",
                commit.first
            );
        }
    }
}

impl World {
    /// F6 of a view: every row is the fold of its entries up to its seq, and the rows of all
    /// entries up to the cursor are written.
    pub(crate) async fn audit_view(&self, view: &str, log: &LogId) {
        let views = views();
        let (view, table) = (views.get(view).expect("a view"), self.table(view));
        let cursor = table.cursor(log).await.expect("memory").unwrap_or_default();
        let mut touching: BTreeMap<RowKey, Vec<AnyRecorded>> = BTreeMap::new();
        for entry in self.entries(log).await {
            let Ok(Some(recorded)) = view.read(log, &entry) else { continue };
            for key in view.rows(&recorded).expect("rows") {
                let again = view.read(log, &entry).expect("it was read").expect("something");
                touching.entry(key).or_default().push(again);
            }
        }
        for (key, entries) in touching {
            let row = table.rows(log, std::slice::from_ref(&key)).await.expect("memory").remove(0);
            let seq = row.as_ref().map_or(Seq::ZERO, |row| row.seq);
            let to = |to: Seq| entries.iter().take_while(move |entry| entry.seq <= to);
            let touched = to(cursor.seq).last().map_or(Seq::ZERO, |entry| entry.seq);
            assert!(seq >= touched, "F6: `{key}` is at {seq}, the cursor at {}", cursor.seq);
            let applied: Vec<&AnyRecorded> = to(seq).collect();
            let folded = view.fold(&key, None, &applied).expect("it was applied");
            let stored = row.and_then(|row| row.body);
            let text = |body: Option<&[u8]>| body.map(|b| String::from_utf8_lossy(b).into_owned());
            assert_eq!(text(stored.as_deref()), text(folded.as_deref()), "F6: `{key}` at {seq}");
        }
    }
}
