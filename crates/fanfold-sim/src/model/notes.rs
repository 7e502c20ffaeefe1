//! Documents of the service `notes`, folded by hand from the JSON of the events. A mistake in the code that hosts
//! services is not made here, too.

use fanfold::entry::Event;
use serde_json::{Value, json};

/// A note.
#[derive(Default)]
pub(super) struct NoteModel {
    exists: bool,
    hash: u64,
    text: String,
    was_removed: bool,
}

impl NoteModel {
    /// Folds an event of either version.
    pub(super) fn fold(&mut self, event: &Event) {
        match event.kind.as_str() {
            "created" => (self.exists, self.text) = (true, String::new()),
            "appended" => {
                let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
                let text = data["text"].as_str().unwrap_or_default();
                self.text.push_str(text);
                for byte in text.bytes() {
                    self.hash = self.hash.wrapping_mul(31).wrapping_add(u64::from(byte));
                }
                self.hash %= 1 << 53;
            }
            "cleared" => {
                let was_removed = self.was_removed || self.exists;
                *self = Self { was_removed, ..Self::default() };
            }
            _ => {}
        }
    }

    /// Whether the note was removed once.
    pub(super) fn was_removed(&self) -> bool {
        self.was_removed
    }

    /// Whether a document is this note.
    pub(super) fn is(&self, document: &[u8]) -> bool {
        let Self { exists, hash, text, .. } = self;
        let note = json!({"exists": exists, "hash": hash, "text": text});
        serde_json::from_slice::<Value>(document).is_ok_and(|document| document == note)
    }
}
