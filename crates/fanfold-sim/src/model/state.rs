//! Checks of the state table: every item is the fold at its seq, and everything up to the head is
//! stored and published.

use std::collections::BTreeSet;

use fanfold::host::body::head;
use fanfold::host::invariant::Invariant;
use fanfold::host::window::Window;
use fanfold::{AnyService, LogId, Seq, StateKey, Time};
use fanfold_pipeline::ports::StateItem;

use super::{Case, LogModel, Model, at};

impl Model {
    /// The state table stored a document, a window or a head.
    pub fn stored(&mut self, log: &LogId, key: &StateKey, item: &StateItem) {
        let versions = self.document_versions(log);
        let model = self.log(log);
        let (mut wrong, mut has_windows_outside) = (Vec::new(), false);
        let tail = model.entries.len() as u64;
        if item.seq.0 > tail {
            wrong.push(format!("{key:?} at {} is beyond the journal's {tail}", item.seq));
        }
        for (id, (_, history)) in &model.documents {
            if versions.iter().any(|version| *key == StateKey::document(*version, id)) {
                let expected = at(history, item.seq).map(|(_, json)| json.as_slice());
                let found = head::decode_document(&item.body).ok();
                if expected != found.as_deref() {
                    wrong.push(format!("{key:?} at {} is not its fold", item.seq));
                }
            }
        }
        for (origin, history) in &model.windows {
            if versions.iter().any(|version| *key == StateKey::window(*version, origin)) {
                let expected = at(history, item.seq).map(|(_, window)| window);
                let found = head::decode_window(&item.body).ok();
                if !expected.zip(found.as_ref()).is_some_and(|(a, b)| same_ids(a, b, model.now())) {
                    wrong.push(format!("{key:?} at {} is not its fold", item.seq));
                }
            }
        }
        let before = model.stored.insert(key.clone(), item.seq);
        if before.is_some_and(|before| before >= item.seq) {
            wrong.push(format!("{key:?} went from {before:?} to {}", item.seq));
        }
        for version in versions {
            if *key == StateKey::head(version) {
                wrong.extend(model.head_contradictions(version, item));
                let head = head::Head::decode(&item.body);
                has_windows_outside |= head.is_ok_and(|head| head.windows.is_none());
            }
        }
        if has_windows_outside {
            self.came_upon(Case::WindowsOutside);
        }
        for what in wrong {
            self.check(Invariant::Head, false, || format!("{log}: {what}"));
        }
    }

    /// The keys of documents, windows and head that the state table may have for a log, heads last.
    pub fn state_keys(&self, log: &LogId) -> Vec<StateKey> {
        let Some(model) = self.logs.get(log) else { return Vec::new() };
        let of_version = |version: u32| {
            let documents = model.documents.keys().map(move |id| StateKey::document(version, id));
            let windows = model.windows.keys().map(move |origin| StateKey::window(version, origin));
            documents.chain(windows).chain([StateKey::head(version)])
        };
        self.document_versions(log).into_iter().flat_map(of_version).collect()
    }

    fn document_versions(&self, log: &LogId) -> BTreeSet<u32> {
        self.versions(log).into_iter().map(AnyService::document_version).collect()
    }
}

impl LogModel {
    fn head_contradictions(&self, version: u32, item: &StateItem) -> Vec<String> {
        let through = item.seq;
        let mut wrong = Vec::new();
        let Ok(head) = head::Head::decode(&item.body) else {
            return vec!["the head cannot be read".to_owned()];
        };
        for (id, (_, history)) in &self.documents {
            let touched = at(history, through).map_or(Seq::ZERO, |(since, _)| *since);
            let stored = self.stored.get(&StateKey::document(version, id)).copied();
            if stored.unwrap_or_default() < touched {
                wrong.push(format!("head {through}: {id} stored at {stored:?}, not {touched}"));
            }
        }
        for (origin, history) in &self.windows {
            let Some((touched, window)) = at(history, through) else { continue };
            match &head.windows {
                Some(inline)
                    if inline.get(origin).is_some_and(|i| same_ids(i, window, head.time)) => {}
                Some(_) => wrong.push(format!("head {through}: the window of {origin} is wrong")),
                None => {
                    let stored = self.stored.get(&StateKey::window(version, origin)).copied();
                    if stored.unwrap_or_default() < *touched {
                        wrong.push(format!("head {through}: window of {origin} at {stored:?}"));
                    }
                }
            }
        }
        if at(&self.prev, through).map(|(_, prev)| prev) != Some(&head.prev) {
            wrong.push(format!("head {through}: `prev` is {:?}", head.prev));
        }
        let unpublished = self.commits.range(..=through).find(|(first, _)| !self.is_done(first));
        if let Some((first, last)) = unpublished {
            wrong.push(format!("head {through}: {first} to {last} was never published"));
        }
        wrong
    }
}

/// Whether two windows give the same answer for every id from this time on. An idle window forgets
/// its ids when it is next written.
fn same_ids(one: &Window, other: &Window, now: Time) -> bool {
    let forgotten = |window: &Window| {
        let mut window = window.clone();
        window.forget_if_idle(now);
        window
    };
    forgotten(one) == forgotten(other)
}
