//! Snapshots: the documents and windows in their present state, and last the head.

use std::collections::BTreeMap;

use super::{Log, StateKey};
use crate::host::body::head::{Head, encode_document, encode_window};
use crate::host::limits::{
    HEAD_WINDOWS_BYTES_MAX, SNAPSHOT_ENTRIES_MAX, SNAPSHOT_ENTRIES_MIN, SNAPSHOT_FACTOR,
    SNAPSHOT_JOURNAL_BYTES_MAX, SNAPSHOT_JOURNAL_BYTES_MIN, WRITE_UNIT_BYTES,
};
use crate::host::position::Seq;
use crate::names::{DocumentId, Origin};

/// An item to put into the state table, unless a newer one is there.
#[derive(Debug, Clone)]
pub struct Put {
    /// Its key.
    pub key: StateKey,
    /// The seq of the last entry folded into it.
    pub seq: Seq,
    /// The body to store.
    pub body: Vec<u8>,
}

/// How much of the journal is above the head when a snapshot is due. A snapshot then costs at most a twentieth of the
/// journal, in bytes or in write units. Upper bounds make it due in logs that touch ever more documents, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    bytes: usize,
    entries: usize,
}

impl Default for Due {
    /// The lower bounds, before the size of a snapshot is known.
    fn default() -> Self {
        Self { bytes: SNAPSHOT_JOURNAL_BYTES_MIN.get(), entries: SNAPSHOT_ENTRIES_MIN.get() }
    }
}

impl Due {
    fn when_it_takes<'a>(puts: impl Iterator<Item = &'a Put>) -> Self {
        let (mut bytes, mut units) = (0, 0);
        for put in puts {
            bytes += put.body.len();
            units += put.body.len().div_ceil(WRITE_UNIT_BYTES).max(1);
        }
        let least = Self::default();
        Self {
            bytes: least.bytes.max(bytes * SNAPSHOT_FACTOR.get()),
            entries: (units * SNAPSHOT_FACTOR.get())
                .clamp(least.entries, SNAPSHOT_ENTRIES_MAX.get()),
        }
    }

    fn is_reached(self, bytes: usize, entries: usize) -> bool {
        let too_much =
            bytes >= SNAPSHOT_JOURNAL_BYTES_MAX.get() && entries >= SNAPSHOT_ENTRIES_MIN.get();
        bytes > self.bytes || entries >= self.entries || too_much
    }
}

/// The items of a snapshot. Every put must be stored before the head.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Documents and windows, in any order.
    pub puts: Vec<Put>,
    /// The head, last.
    pub head: Put,
    documents: Vec<DocumentId>,
    windows: Vec<Origin>,
    split: bool,
}

impl Log {
    /// Whether a snapshot may be due. Only encoding it shows whether it is.
    pub fn may_snapshot(&self) -> bool {
        self.snapshot_at.is_reached(self.since.bytes(), self.since.entries())
    }

    /// A snapshot at the tail, if it is due. `None`, too, if a decided commit is not acknowledged, or a commit up to the
    /// tail is not published.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        let is_published = self.unpublished(self.tail).next().is_none();
        if !self.may_snapshot() || !self.is_settled() || !is_published {
            return None;
        }
        let version = self.service.document_version();
        let mut puts = Vec::new();
        let mut documents = Vec::new();
        for (id, held) in self.documents.iter().filter(|(_, held)| held.is_dirty()) {
            // A document that cannot be written stays dirty, and the head does not move. Loads get slower, and nothing
            // is lost.
            let json = self.service.encode_document(held.value.as_ref()?).ok()?;
            let (key, body) = (StateKey::document(version, id), encode_document(&json));
            puts.push(Put { key, seq: held.seq, body });
            documents.push(id.clone());
        }
        self.shrink_idle_windows();
        let weights = self.windows.iter().map(|(o, held)| o.as_str().len() + held.value.weight());
        let weight: usize = weights.sum();
        let split = self.windows_split || weight > HEAD_WINDOWS_BYTES_MAX.get();
        let mut windows = Vec::new();
        if split {
            // Windows were in the head so far and have no items, so the first split puts all of them.
            let first = !self.windows_split;
            for (origin, held) in self.windows.iter().filter(|(_, h)| first || h.is_dirty()) {
                let (key, body) =
                    (StateKey::window(version, origin), encode_window(&held.value).ok()?);
                puts.push(Put { key, seq: held.seq, body });
                windows.push(origin.clone());
            }
        }
        let inline = || self.windows.iter().map(|(o, held)| (o.clone(), held.value.clone()));
        let head = Head {
            time: self.time,
            prev: (*self.prev).clone(),
            windows: (!split).then(|| inline().collect::<BTreeMap<_, _>>()),
        };
        let head = Put { key: StateKey::head(version), seq: self.tail, body: head.encode().ok()? };

        self.snapshot_at = Due::when_it_takes(puts.iter().chain([&head]));
        if !self.may_snapshot() {
            return None;
        }
        puts.sort_by(|a, b| a.key.cmp(&b.key));
        Some(Snapshot { puts, head, documents, windows, split })
    }

    /// Reduces idle windows to their floors. A window with an item of its own is stored again for that only if its item
    /// then takes fewer write units.
    fn shrink_idle_windows(&mut self) {
        let (now, tail) = (self.time, self.tail);
        let is_split = self.windows_split;
        self.windows.change_all(|held| {
            let before = held.value.weight();
            if is_split && before <= WRITE_UNIT_BYTES {
                return;
            }
            held.value.forget_if_idle(now);
            if held.value.weight() < before {
                // No entry up to the tail changes an idle window, so this is its state at the tail.
                held.seq = tail;
                held.bytes = held.value.weight();
            }
        });
    }

    /// Adopts a head that another process has stored: this process need not store or publish what it covers. A head that
    /// is not between the known head and the tail is ignored.
    pub fn adopt(&mut self, seq: Seq, head: &Head) {
        if seq <= self.head || seq > self.tail || !self.is_settled() {
            return;
        }
        self.documents.all_stored(seq);
        // If that head holds its windows, they have no items. Once ours have items, they stay dirty.
        if head.windows.is_none() {
            self.windows.all_stored(seq);
            self.windows_split = true;
        }
        self.head = seq;
        self.snapshot_at = Due::default();
        self.since.forget(seq);
    }

    /// Records that the snapshot is stored, including its head.
    pub fn snapshotted(&mut self, snapshot: &Snapshot) {
        let head = snapshot.head.seq;
        for id in &snapshot.documents {
            self.documents.stored(id, head);
        }
        for origin in &snapshot.windows {
            self.windows.stored(origin, head);
        }
        self.windows_split |= snapshot.split;
        self.head = self.head.max(head);
        self.snapshot_at = Due::default();
        self.since.forget(head);
    }
}
