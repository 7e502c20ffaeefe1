//! The services and views of the simulated host. The ledger has one event for a document and entry.
//! [`Notes`] covers what else authors do: several events for a document, or none; documents and
//! rows that are removed and created again; large and tiny ones; rejections whose message
//! depends on a document; and, from a deployment on, events of a newer version.

use fanfold::entry::Raw;
use fanfold::host::canary::Canary;
use fanfold::{
    Code, Context, DocumentId, Documents, Recorded, RowKey, Service, Services, View, Views,
};
use ledger::views::{Balances, Statement, Totals};
use ledger::{Event, Ledger};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A deposit of this amount makes the view `fragile` panic.
pub const BREAKING_AMOUNT: i64 = 666;

/// Notes of an organisation: few, so that they are written again and again.
pub const NOTES: u64 = 7;

/// The deployed version of [`Notes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployed {
    /// The first version.
    First,
    /// The second version, which reads the events of both.
    Second,
}

/// The services of the simulated host.
pub fn services(deployed: Deployed) -> Services {
    let services = Services::new().with::<Ledger>().with::<Mine>().with::<Canary>();
    match deployed {
        Deployed::First => services.with::<Notes<()>>(),
        Deployed::Second => services.with::<Notes<u64>>(),
    }
}

/// The views of the simulated host.
pub fn views(deployed: Deployed) -> Views {
    let views = Views::new().with::<Balances>().with::<Statement>().with::<Totals>();
    let views = views.with::<Fragile>();
    let views = match deployed {
        Deployed::First => views.with::<Pages<()>>().with::<Words<()>>(),
        Deployed::Second => views.with::<Pages<u64>>().with::<Words<u64>>(),
    };
    views.beside(&services(deployed))
}

/// The views that readers read: those that can be waited for.
pub const READ: [&str; 4] = ["balances", "statement", "totals", "pages"];

/// A second service beside the ledger, with a command that makes `decide` panic.
pub struct Mine;

/// The commands of [`Mine`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MineCommand {
    Dig,
    Explode,
}

/// The events of [`Mine`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MineEvent {
    Dug,
}

/// The rejection of [`Mine`], which rejects nothing.
#[derive(Debug, thiserror::Error)]
#[error("it never refuses")]
pub struct Never;

impl Code for Never {
    fn code(&self) -> &'static str {
        "never"
    }
}

impl Service for Mine {
    const NAME: &'static str = "mine";
    const DOCUMENT_VERSION: u32 = 2;
    const EVENTS: &'static [(&'static str, u32)] = &[("dug", 1)];
    type Command = MineCommand;
    type Event = MineEvent;
    type Document = u64;
    type Rejection = Never;

    fn documents(_: &MineCommand) -> Vec<DocumentId> {
        DocumentId::new("shaft").into_iter().collect()
    }

    fn init(_: &DocumentId) -> u64 {
        0
    }

    fn decide(
        _: &Documents<'_, u64>,
        command: &MineCommand,
        _: &Context,
    ) -> Result<Vec<(DocumentId, MineEvent)>, Never> {
        match command {
            MineCommand::Dig => {
                Ok(DocumentId::new("shaft").into_iter().map(|id| (id, MineEvent::Dug)).collect())
            }
            MineCommand::Explode => panic!("boom"),
        }
    }

    fn evolve(depth: &mut u64, _: &MineEvent) {
        *depth += 1;
    }
}

/// A view that panics on one amount.
pub struct Fragile;

impl View for Fragile {
    const NAME: &'static str = "fragile";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Ledger::NAME];
    const EVENTS: &'static [(&'static str, u32)] = &[("deposited", 1)];
    type Event = Event;
    type Row = u64;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        if entry.events().is_empty() {
            vec![]
        } else {
            RowKey::new("deposits").into_iter().collect()
        }
    }

    fn apply(row: Option<u64>, _: &RowKey, entry: &Recorded<Event>) -> Option<u64> {
        let mut deposits = row.unwrap_or_default();
        for (_, event) in entry.events() {
            match event {
                Event::Deposited(moved) if moved.amount == BREAKING_AMOUNT => panic!("{moved:?}"),
                _ => deposits += 1,
            }
        }
        Some(deposits)
    }
}

/// What version 2 of `appended` adds: a number that version 1 lacks.
pub trait Mark: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The version of `appended`, and of the documents.
    const VERSION: u32;
    /// [`Notes`]' event types.
    const EVENTS: &'static [(&'static str, u32)] =
        &[("created", 1), ("appended", Self::VERSION), ("cleared", 1)];
    /// [`Words`]' event types.
    const APPENDED: &'static [(&'static str, u32)] = &[("appended", Self::VERSION)];
    /// The mark of a new event.
    fn of(ctx: &Context) -> Self;
}

impl Mark for () {
    const VERSION: u32 = 1;

    fn of(_: &Context) {}
}

impl Mark for u64 {
    const VERSION: u32 = 2;

    fn of(ctx: &Context) -> Self {
        ctx.seq.0
    }
}

/// Short texts, by number. `M` is `()` in the first version, and a number in the second.
pub struct Notes<M>(std::marker::PhantomData<fn() -> M>);

/// The commands of [`Notes`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum NotesCommand {
    /// Appends to each note so many times; the appends of the notes alternate.
    Write { notes: Vec<u64>, times: u64, bytes: usize },
    /// Clears notes. With `rewrite`, each is created again at once.
    Clear { notes: Vec<u64>, rewrite: bool },
    /// Decides nothing.
    Nothing,
    /// Is refused after the note was read.
    Refuse { note: u64 },
    /// Follows the notes from this one on: the hash of each names the next, for so many steps. Appends
    /// to the last, or is refused if it does not exist.
    Follow { note: u64, steps: u64 },
}

/// The events of [`Notes`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum NotesEvent<M> {
    Created,
    Appended { text: String, mark: M },
    Cleared,
}

/// A note. `hash` depends on every event and its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Note {
    exists: bool,
    hash: u64,
    text: String,
}

/// The rejection of [`NotesCommand::Refuse`].
#[derive(Debug, thiserror::Error)]
#[error("the note has {bytes} bytes and hash {hash}")]
pub struct Refused {
    bytes: usize,
    hash: u64,
}

impl Code for Refused {
    fn code(&self) -> &'static str {
        "refused"
    }
}

/// Continues `hash` with a text. The result depends on each byte, and on their order.
fn hashed(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
        % (1 << 53)
}

fn note(n: u64) -> DocumentId {
    let id = DocumentId::new(format!("n{n}"));
    id.expect("`n` and a number is a valid id")
}

/// The notes that follow a note, each by the hash of the one before it, as far as they are loaded.
fn followed(docs: &Documents<'_, Note>, first: u64, steps: u64) -> Vec<DocumentId> {
    let (mut at, mut ids) = (note(first), Vec::new());
    for _ in 0..steps {
        let Some(Note { hash, .. }) = docs.get(&at) else { break };
        at = note(hash % NOTES);
        ids.push(at.clone());
    }
    ids
}

fn upcast<M: Mark>(kind: &str, from: u32, data: Raw) -> Raw {
    if kind == "appended" && from < M::VERSION {
        return data.change(|fields| {
            fields.insert("mark".to_owned(), Raw::of(&0));
        });
    }
    data
}

impl<M: Mark> Service for Notes<M> {
    const NAME: &'static str = "notes";
    const DOCUMENT_VERSION: u32 = M::VERSION;
    const EVENTS: &'static [(&'static str, u32)] = M::EVENTS;
    type Command = NotesCommand;
    type Event = NotesEvent<M>;
    type Document = Note;
    type Rejection = Refused;

    fn documents(command: &NotesCommand) -> Vec<DocumentId> {
        match command {
            NotesCommand::Write { notes, .. } | NotesCommand::Clear { notes, .. } => {
                notes.iter().copied().map(note).collect()
            }
            NotesCommand::Nothing => Vec::new(),
            NotesCommand::Refuse { note: n } | NotesCommand::Follow { note: n, .. } => {
                vec![note(*n)]
            }
        }
    }

    fn more(command: &NotesCommand, docs: &Documents<'_, Note>) -> Vec<DocumentId> {
        match command {
            NotesCommand::Follow { note, steps } => followed(docs, *note, *steps),
            _ => Vec::new(),
        }
    }

    fn init(_: &DocumentId) -> Note {
        Note::default()
    }

    fn decide(
        docs: &Documents<'_, Note>,
        command: &NotesCommand,
        ctx: &Context,
    ) -> Result<Vec<(DocumentId, NotesEvent<M>)>, Refused> {
        let mut events = Vec::new();
        match command {
            NotesCommand::Write { notes, times, bytes } => {
                for id in notes.iter().copied().map(note) {
                    if !docs[&id].exists {
                        events.push((id, NotesEvent::Created));
                    }
                }
                for time in 0..*times {
                    for n in notes {
                        let letter = char::from(b'a' + ((ctx.seq.0 + time + n) % 26) as u8);
                        let text = letter.to_string().repeat(*bytes);
                        events.push((note(*n), NotesEvent::Appended { text, mark: M::of(ctx) }));
                    }
                }
            }
            NotesCommand::Clear { notes, rewrite } => {
                for id in notes.iter().copied().map(note) {
                    events.push((id.clone(), NotesEvent::Cleared));
                    if *rewrite {
                        events.push((id, NotesEvent::Created));
                    }
                }
            }
            NotesCommand::Nothing => {}
            NotesCommand::Refuse { note: n } => {
                let Note { hash, text, .. } = &docs[&note(*n)];
                return Err(Refused { bytes: text.len(), hash: *hash });
            }
            NotesCommand::Follow { note: first, steps } => {
                let last = followed(docs, *first, *steps).pop().unwrap_or(note(*first));
                let Note { exists, hash, text } = &docs[&last];
                if !exists {
                    return Err(Refused { bytes: text.len(), hash: *hash });
                }
                events
                    .push((last, NotesEvent::Appended { text: "f".to_owned(), mark: M::of(ctx) }));
            }
        }
        Ok(events)
    }

    fn evolve(note: &mut Note, event: &NotesEvent<M>) {
        match event {
            NotesEvent::Created => {
                *note = Note { exists: true, hash: note.hash, ..Note::default() }
            }
            NotesEvent::Appended { text, .. } => {
                note.hash = hashed(note.hash, text);
                note.text.push_str(text);
            }
            NotesEvent::Cleared => *note = Note::default(),
        }
    }

    fn upcast(kind: &str, from: u32, data: Raw) -> Raw {
        upcast::<M>(kind, from, data)
    }
}

/// A row for each note that exists.
pub struct Pages<M>(std::marker::PhantomData<fn() -> M>);

/// A row of [`Pages`].
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    appends: u64,
    hash: u64,
    letter: String,
}

impl<M: Mark> View for Pages<M> {
    const NAME: &'static str = "pages";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["notes"];
    const EVENTS: &'static [(&'static str, u32)] = M::EVENTS;
    type Event = NotesEvent<M>;
    type Row = Page;

    fn rows(entry: &Recorded<NotesEvent<M>>) -> Vec<RowKey> {
        let mut keys: Vec<RowKey> =
            entry.events().iter().filter_map(|(id, _)| RowKey::new(id.as_str()).ok()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn apply(row: Option<Page>, key: &RowKey, entry: &Recorded<NotesEvent<M>>) -> Option<Page> {
        let of_key = entry.events().iter().filter(|(id, _)| id.as_str() == key.as_str());
        of_key.fold(row, |row, (_, event)| match event {
            NotesEvent::Created => Some(Page::default()),
            NotesEvent::Appended { text, .. } => row.map(|row| Page {
                appends: row.appends + 1,
                hash: hashed(row.hash, text),
                letter: text.chars().take(1).collect(),
            }),
            NotesEvent::Cleared => None,
        })
    }
}

/// A filtered view with one row, which only grows: at the limit of a row the view parks.
pub struct Words<M>(std::marker::PhantomData<fn() -> M>);

impl<M: Mark> View for Words<M> {
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["notes"];
    const EVENTS: &'static [(&'static str, u32)] = M::APPENDED;
    type Event = NotesEvent<M>;
    type Row = String;

    fn upcast(kind: &str, from: u32, data: &Raw) -> Option<Raw> {
        Some(upcast::<M>(kind, from, data.clone()))
    }

    fn rows(entry: &Recorded<NotesEvent<M>>) -> Vec<RowKey> {
        let is_any = !entry.events().is_empty();
        RowKey::new("all").into_iter().filter(|_| is_any).collect()
    }

    fn apply(row: Option<String>, _: &RowKey, entry: &Recorded<NotesEvent<M>>) -> Option<String> {
        let mut words = row.unwrap_or_default();
        for (_, event) in entry.events() {
            if let NotesEvent::Appended { text, .. } = event {
                words.extend(text.chars().take(3));
            }
        }
        Some(words)
    }
}
