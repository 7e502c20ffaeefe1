//! The state machine of one log: its position, its service's documents and windows, and what must be stored and
//! published next. It does no I/O. It returns effects as data ([`Sealed`], [`Commit`], [`Snapshot`]), and the processor
//! carries them out.
//!
//! A command passes through [`Log::prepare`], [`Log::wants`] (what must be loaded first and given to [`Log::provide`]),
//! [`Log::decide`], [`Log::seal`], and, once the journal has its commit, [`Log::acknowledge`] and [`Log::published`].
//! [`Log::fold`] takes in commits of other writers.
//!
//! Deciding runs ahead of the journal. When an append is not acknowledged, the processor drops the whole [`Log`] and
//! loads it again.

mod decide;
mod fold;
mod shelf;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};

pub use decide::{Prepared, Sealed, Work};
pub use fold::FoldError;
pub use snapshot::{Put, Snapshot};

use crate::entry::Entry;
use crate::host::body::head::{Head, Prev};
use crate::host::body::notification::Commit;
use crate::host::digest::Digest;
use crate::host::invariant::Breach;
use crate::host::position::{CommandId, Seq};
use crate::host::window::{Sighting, Window};
use crate::invariant;
use crate::names::{DocumentId, LogId, Name, Origin};
use crate::service::{AnyCommand, AnyDocument, AnyService, MORE_ROUNDS_MAX};
use crate::time::Time;

use self::shelf::{AboveHead, Held, OVERHEAD_BYTES, Shelf};

/// Bytes of documents, and of windows, above which a log evicts those that equal their stored items. It bounds what one
/// log takes of a processor's cache.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The key of an item in the state table, below its log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey(CompactString);

impl StateKey {
    /// `v1#head`.
    pub fn head(version: u32) -> Self {
        Self(format_compact!("v{version}#head"))
    }

    /// `v1#doc#cash`.
    pub fn document(version: u32, id: &DocumentId) -> Self {
        Self(format_compact!("v{version}#doc#{id}"))
    }

    /// `v1#win#ann`.
    pub fn window(version: u32, origin: &Origin) -> Self {
        Self(format_compact!("v{version}#win#{origin}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that must be loaded before the log can go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// A document.
    Document(DocumentId),
    /// The window of an origin.
    Window(Origin),
    /// The entry at a seq of the journal: the first command with an id that comes again.
    Entry(Seq),
}

/// The part of a command that its entry keeps. It distinguishes repeats of the command from other
/// commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its origin.
    pub origin: Origin,
    /// Its id.
    pub id: CommandId,
    /// Its name.
    pub command: Option<Name>,
    /// The digest of its data.
    pub digest: Option<Digest>,
}

impl From<&Entry> for Sent {
    fn from(entry: &Entry) -> Self {
        let Entry { origin, id, command, digest, .. } = entry;
        Self { origin: origin.clone(), id: *id, command: command.clone(), digest: *digest }
    }
}

/// The place of a seq relative to a log's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At or below the tail: it has its entry.
    Done,
    /// The next to decide.
    Next,
    /// Above the next one: there is a gap in between.
    Beyond,
}

/// A document before a command; `None` where none is stored.
type Before<'a> = (&'a DocumentId, Option<&'a AnyDocument>);

/// One log, in memory.
pub struct Log {
    id: LogId,
    service: Arc<dyn AnyService>,
    /// The last head that this process knows.
    head: Seq,
    /// Commits up to here were published by a processor of an older document version.
    published_before: Seq,
    tail: Seq,
    time: Time,
    /// The highest seq of all items provided.
    seen: Seq,
    documents: Shelf<DocumentId, Option<AnyDocument>>,
    windows: Shelf<Origin, Window>,
    /// Whether windows have items of their own: one that is not in memory may then be stored.
    windows_split: bool,
    /// The wanted entries of the journal for the next commands; `None` if there is no entry.
    firsts: HashMap<Seq, Option<Sent>>,
    /// Whether the service has asked for more documents once. Only then [`Log::wants`] asks it in advance.
    asks_for_more: bool,
    prev: Arc<Prev>,
    since: AboveHead,
    open: decide::Open,
    sealed: VecDeque<Sealed>,
    /// A snapshot is not tried again before the journal has grown by this much since the head.
    snapshot_at: snapshot::Due,
}

impl Log {
    /// A log as of its head. The commits after it are not folded yet. `published_before` is the highest head of older
    /// document versions.
    pub fn new(
        id: LogId,
        service: Arc<dyn AnyService>,
        head: Option<(Seq, Head)>,
        published_before: Seq,
    ) -> Self {
        let (at, head) = head.unwrap_or_else(|| {
            (Seq::ZERO, Head { windows: Some(BTreeMap::new()), ..Head::default() })
        });
        let windows_split = head.windows.is_none();
        let mut windows = Shelf::default();
        for (origin, value) in head.windows.unwrap_or_default() {
            let bytes = value.weight();
            windows.put(origin, Held { value, seq: at, stored: at, bytes });
        }
        Self {
            id,
            service,
            head: at,
            published_before,
            tail: at,
            time: head.time,
            seen: at,
            documents: Shelf::default(),
            windows,
            windows_split,
            firsts: HashMap::new(),
            asks_for_more: false,
            prev: Arc::new(head.prev),
            since: AboveHead::default(),
            open: decide::Open::default(),
            sealed: VecDeque::new(),
            snapshot_at: snapshot::Due::default(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &LogId {
        &self.id
    }

    /// Its service.
    pub fn service(&self) -> &Arc<dyn AnyService> {
        &self.service
    }

    /// The head: every entry up to it is in the stored documents and windows, and published.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The seq of the last entry, including decided entries that are not stored yet.
    pub fn tail(&self) -> Seq {
        self.tail
    }

    /// Whether a provided item is ahead of the tail: then the journal has more commits.
    pub fn is_behind(&self) -> bool {
        self.seen > self.tail
    }

    /// Checks, once the journal is read to its end, that the state table is not ahead of it.
    pub fn reaches_the_state_table(&self) -> Result<(), Breach> {
        let Self { seen, tail, .. } = self;
        invariant!(Head, seen <= tail, "the state table is at {seen}, the journal ends at {tail}")
    }

    /// Whether everything decided is known to be in the journal.
    pub fn is_settled(&self) -> bool {
        self.since.last().unwrap_or(self.head) == self.tail
    }

    /// Where `seq` lies.
    pub fn place(&self, seq: Seq) -> Place {
        if seq <= self.tail {
            Place::Done
        } else if seq == self.tail.next() {
            Place::Next
        } else {
            Place::Beyond
        }
    }

    /// The command of the entry at `seq`, for seqs above the head and up to the last stored commit.
    pub fn command_at(&self, seq: Seq) -> Option<&Sent> {
        let commit = self.since.at(seq)?;
        commit.commands.get((seq.0 - commit.first.0) as usize)
    }

    /// The commits up to `through` that are not known to be published, in order.
    pub fn unpublished(&self, through: Seq) -> impl Iterator<Item = &Commit> {
        self.since.unpublished(through)
    }

    /// The commit that holds `seq`, if it is not known to be published.
    pub fn unpublished_at(&self, seq: Seq) -> Option<&Commit> {
        self.since.at(seq)?.unpublished.as_ref()
    }

    /// Records that the commit from `first` on is published.
    pub fn published(&mut self, first: Seq) {
        self.since.published(first);
    }

    /// What must be provided before these commands can be decided. The caller asks again after it has provided it, until
    /// nothing is missing: only windows show which ids come again, and only documents show which others are needed.
    ///
    /// Of what services ask for ([`Service::more`](crate::Service::more)), it has only what they ask for by the documents
    /// as they are now. That is right for the first command, and may be wrong for those behind it.
    pub fn wants<'a>(&self, works: impl IntoIterator<Item = &'a Work>) -> BTreeSet<Want> {
        let mut wants = BTreeSet::new();
        for work in works {
            if let Prepared::GivenUp(_) = work.prepared {
                continue;
            }
            self.want_window(&work.command.origin, &mut wants);
            if let Sighting::Known(first) = self.sight(&work.command, self.time)
                && first <= self.head
                && !self.firsts.contains_key(&first)
            {
                wants.insert(Want::Entry(first));
            }
            if let Prepared::Ready { command, documents } = &work.prepared {
                documents.iter().for_each(|id| self.want_document(id, &mut wants));
                if self.asks_for_more {
                    self.want_more(command, documents.clone(), &mut wants);
                }
            }
        }
        wants
    }

    fn want_more(
        &self,
        command: &AnyCommand,
        mut ids: Vec<DocumentId>,
        wants: &mut BTreeSet<Want>,
    ) {
        for _ in 0..MORE_ROUNDS_MAX {
            // A missing document is wanted already. A fault comes again when the command is decided.
            let Some(docs) = self.held(&ids) else { return };
            let Ok(more) = self.service.more(&docs, command) else { return };
            if more.is_empty() {
                return;
            }
            more.iter().for_each(|id| self.want_document(id, wants));
            ids.extend(more);
        }
    }

    /// These documents; `None` if one is not in memory.
    fn held<'a>(&'a self, ids: &'a [DocumentId]) -> Option<Vec<Before<'a>>> {
        let mut docs = Vec::with_capacity(ids.len());
        for id in ids {
            docs.push((id, self.documents.get(id)?.value.as_ref()));
        }
        Some(docs)
    }

    fn want_document(&self, id: &DocumentId, wants: &mut BTreeSet<Want>) {
        if self.documents.get(id).is_none() {
            wants.insert(Want::Document(id.clone()));
        }
    }

    fn want_window(&self, origin: &Origin, wants: &mut BTreeSet<Want>) {
        if self.windows_split && self.windows.get(origin).is_none() && !origin.is_nobody() {
            wants.insert(Want::Window(origin.clone()));
        }
    }

    /// The key of a wanted item in the state table; `None` for an entry of the journal.
    pub fn state_key(&self, want: &Want) -> Option<StateKey> {
        let version = self.service.document_version();
        match want {
            Want::Document(id) => Some(StateKey::document(version, id)),
            Want::Window(origin) => Some(StateKey::window(version, origin)),
            Want::Entry(_) => None,
        }
    }

    /// Evicts documents and windows that equal their stored items, if there are too many. To be called between batches.
    pub fn shrink(&mut self) {
        self.documents.shrink(HELD_BYTES_MAX);
        if self.windows_split {
            self.windows.shrink(HELD_BYTES_MAX);
        }
    }

    /// An estimate of the bytes that the log takes in memory, for the cache.
    pub fn weight(&self) -> usize {
        OVERHEAD_BYTES + self.documents.weight() + self.windows.weight() + self.since.weight()
    }
}
