//! The messages of a topic: CloudEvents 1.0 batches (JSON arrays). Each commit is one `fanfold.commit.v1` event. The
//! events of its entries follow it, unless subscribers must read them from the journal.
//!
//! This is the contract of independent view services. Its JSON Schema is [`SCHEMA`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::DecodeError;
use super::head::Prev;
use crate::entry::{Entry, Event, Outcome, Raw, kinds};
use crate::host::limits::{NOTIFICATION_BYTES_MAX, NOTIFICATION_BYTES_SOFT};
use crate::host::position::{CommandId, Seq};
use crate::names::{DocumentId, LogId, Name, Origin};
use crate::time::Time;
use crate::trace::TraceParent;

/// The JSON Schema of a message, draft 2020-12.
pub const SCHEMA: &str = include_str!("../../../schema/notification.v1.json");

const COMMIT_TYPE: &str = "fanfold.commit.v1";
const JSON: &str = "application/json";
/// SNS counts attributes' names and types too: `services`, `kinds`, `partitions`, `String.Array`.
const ATTRIBUTES_BYTES: usize = 80;
/// An estimate of the bytes that an entry, or an event of it, takes in memory beside its texts.
const ENTRY_BYTES: usize = 128;

/// A commit to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The log.
    pub log: LogId,
    /// Its entries, at least one.
    pub entries: Arc<[Entry]>,
    /// For every kind, the seq of the last entry before this commit that has it.
    pub prev: Arc<Prev>,
}

impl Commit {
    /// The seq of the first entry.
    pub fn first(&self) -> Seq {
        self.entries.first().map_or(Seq::ZERO, |entry| entry.seq)
    }

    /// The seq of the last entry.
    pub fn last(&self) -> Seq {
        self.entries.last().map_or(Seq::ZERO, |entry| entry.seq)
    }

    /// An estimate of the bytes that it takes in memory, for bounds.
    pub fn weight(&self) -> usize {
        let texts = |entry: &Entry| match &entry.outcome {
            Outcome::Accepted(events) => {
                events.iter().map(|event| ENTRY_BYTES + event.data.get().len()).sum()
            }
            Outcome::Rejected { code, message, .. } => code.len() + message.len(),
            Outcome::Faulted { message, data, .. } => message.len() + data.get().len(),
            Outcome::Lost { reason } => reason.len(),
            Outcome::Duplicate { .. } | Outcome::Stale => 0,
        };
        self.entries.iter().map(|entry| ENTRY_BYTES + texts(entry)).sum()
    }
}

/// The kinds of an entry, by which subscribers filter: `ledger.deposited`, `fanfold.rejected`.
/// Duplicates and stale entries have none.
pub fn entry_kinds<'a>(service: &'a str, entry: &'a Entry) -> impl Iterator<Item = Cow<'a, str>> {
    let (events, common) = match &entry.outcome {
        Outcome::Accepted(events) => (events.as_slice(), None),
        Outcome::Rejected { .. } => (&[][..], Some(kinds::REJECTED)),
        Outcome::Faulted { .. } => (&[][..], Some(kinds::FAULTED)),
        Outcome::Lost { .. } => (&[][..], Some(kinds::LOST)),
        Outcome::Duplicate { .. } | Outcome::Stale => (&[][..], None),
    };
    let events = events.iter().map(move |event| Cow::Owned(format!("{service}.{}", event.kind)));
    events.chain(common.map(Cow::Borrowed))
}

/// A message for a topic, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The CloudEvents batch.
    pub body: String,
    /// The attributes, for filter policies.
    pub attributes: Attributes,
}

/// Message attributes, each a `String.Array`. They reduce traffic and isolate no tenant: a message matches if any of its
/// commits does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The services of the message's commits.
    pub services: BTreeSet<String>,
    /// The kinds of the message's entries.
    pub kinds: BTreeSet<String>,
    /// The partitions of the message's commits.
    pub partitions: BTreeSet<String>,
}

impl Attributes {
    fn bytes(&self) -> usize {
        let all = self.services.iter().chain(&self.kinds).chain(&self.partitions);
        // Each name is quoted, with a comma. Quotes in it are escaped, and so are some characters that begin with this
        // byte, for three bytes more.
        let escapes = |byte: u8| match byte {
            b'"' => 1,
            0xEF => 3,
            _ => 0,
        };
        let bytes = |value: &String| value.len() + 3 + value.bytes().map(escapes).sum::<usize>();
        ATTRIBUTES_BYTES + all.map(bytes).sum::<usize>()
    }

    fn merged(&self, other: &Self) -> Self {
        let join = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.union(b).cloned().collect();
        Self {
            services: join(&self.services, &other.services),
            kinds: join(&self.kinds, &other.kinds),
            partitions: join(&self.partitions, &other.partitions),
        }
    }
}

impl Message {
    /// The bytes that SNS counts.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.attributes.bytes()
    }
}

#[derive(Serialize, Deserialize)]
struct CloudEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    seq: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    commandid: Option<Cow<'a, str>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "TraceParent::stored"
    )]
    traceparent: Option<TraceParent>,
    #[serde(borrow)]
    data: Cow<'a, RawValue>,
}

#[derive(Serialize, Deserialize)]
struct CommitData<'a> {
    first: Seq,
    last: Seq,
    #[serde(borrow)]
    prev: Cow<'a, Prev>,
    body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    Inline,
    Journal,
}

#[derive(Serialize, Deserialize)]
struct RejectedData<'a> {
    code: Cow<'a, str>,
    message: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Seq>,
}

#[derive(Serialize, Deserialize)]
struct FaultedData<'a> {
    message: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct LostData<'a> {
    reason: Cow<'a, str>,
}

/// A message, and how many of the given commits it holds: the next ones, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The message.
    pub message: Message,
    /// The number of its commits.
    pub commits: usize,
}

/// Packs commits, in order, into messages up to the soft limit. A commit above it gets a message of its own. One above
/// the hard limit is sent without its entries (`"body":"journal"`).
pub fn pack<'a>(commits: impl IntoIterator<Item = &'a Commit>) -> serde_json::Result<Vec<Packed>> {
    let bytes_soft = NOTIFICATION_BYTES_SOFT.get().min(NOTIFICATION_BYTES_MAX.get());
    let mut messages = Vec::new();
    let mut open: Option<Packed> = None;
    for commit in commits {
        let mut next =
            Message { body: write_commit(commit, Body::Inline)?, attributes: attributes(commit) };
        // Two brackets close the batch.
        if next.bytes() + 2 > NOTIFICATION_BYTES_MAX.get() {
            next.body = write_commit(commit, Body::Journal)?;
        }
        open = Some(match open.take() {
            None => Packed { message: next, commits: 1 },
            Some(mut packed) => {
                let attributes = packed.message.attributes.merged(&next.attributes);
                let bytes = packed.message.body.len() + next.body.len() + 3 + attributes.bytes();
                if bytes <= bytes_soft {
                    packed.message.body.push(',');
                    packed.message.body.push_str(&next.body);
                    packed.message.attributes = attributes;
                    packed.commits += 1;
                    packed
                } else {
                    messages.push(close(packed));
                    Packed { message: next, commits: 1 }
                }
            }
        });
    }
    messages.extend(open.map(close));
    Ok(messages)
}

/// A message with one commit without its entries, even if it is small.
pub fn by_reference(commit: &Commit) -> serde_json::Result<Message> {
    let body = write_commit(commit, Body::Journal)?;
    let message = Message { body, attributes: attributes(commit) };
    Ok(close(Packed { message, commits: 1 }).message)
}

fn close(mut packed: Packed) -> Packed {
    packed.message.body.insert(0, '[');
    packed.message.body.push(']');
    packed
}

fn attributes(commit: &Commit) -> Attributes {
    let service = commit.log.service();
    let kinds = commit.entries.iter().flat_map(|entry| entry_kinds(service, entry));
    Attributes {
        services: [service.to_owned()].into(),
        kinds: kinds.map(Cow::into_owned).collect(),
        partitions: [commit.log.partition().to_owned()].into(),
    }
}

fn write_commit(commit: &Commit, body: Body) -> serde_json::Result<String> {
    let (first, last) = (commit.first(), commit.last());
    let time = commit.entries.last().map_or(Time(0), |entry| entry.time);
    let data = CommitData { first, last, prev: Cow::Borrowed(&commit.prev), body };
    let mut events = vec![event(
        commit,
        format!("{}@{first}-{last}", commit.log),
        COMMIT_TYPE.to_owned(),
        last,
        time,
        Cow::Owned(to_raw_value(&data)?),
    )];
    if body == Body::Inline {
        for entry in commit.entries.iter() {
            write_entry(commit, entry, &mut events)?;
        }
    }
    let json = serde_json::to_string(&events)?;
    Ok(as_xml_characters(&json[1..json.len() - 1]).into_owned())
}

/// The value of a message attribute of the type `String.Array`.
pub fn string_array(values: &BTreeSet<String>) -> String {
    // Writing strings as JSON cannot fail.
    as_xml_characters(&serde_json::to_string(values).unwrap_or_default()).into_owned()
}

/// Escapes U+FFFE and U+FFFF. SNS and SQS accept only characters of XML 1.0, and JSON may hold these two unescaped in
/// strings. They are escaped before the message is measured, so the measured size is the sent size.
fn as_xml_characters(json: &str) -> Cow<'_, str> {
    // Fast path: both begin with this byte, which most texts do not have.
    if !json.as_bytes().contains(&0xEF) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff"))
}

fn event<'a>(
    commit: &'a Commit,
    id: String,
    kind: String,
    seq: Seq,
    time: Time,
    data: Cow<'a, RawValue>,
) -> CloudEvent<'a> {
    CloudEvent {
        specversion: "1.0".into(),
        id: id.into(),
        source: format!("fanfold/{}", commit.log.service()).into(),
        kind: kind.into(),
        subject: None,
        time: time.to_string().into(),
        datacontenttype: JSON.into(),
        log: commit.log.as_str().into(),
        seq: seq.to_string().into(),
        origin: None,
        commandid: None,
        traceparent: None,
        data,
    }
}

fn write_entry<'a>(
    commit: &'a Commit,
    entry: &'a Entry,
    events: &mut Vec<CloudEvent<'a>>,
) -> serde_json::Result<()> {
    let mut push = |index: usize, kind: String, subject: Option<&'a DocumentId>, data| {
        let id = format!("{}@{}.{index}", commit.log, entry.seq);
        let mut event = event(commit, id, kind, entry.seq, entry.time, data);
        event.subject = subject.map(|document| document.as_str().into());
        if !entry.origin.is_nobody() {
            event.origin = Some(entry.origin.as_str().into());
            event.commandid = Some(entry.id.to_string().into());
        }
        event.traceparent = entry.trace;
        events.push(event);
    };
    let common = |kind: &str| format!("{kind}.v1");
    match &entry.outcome {
        Outcome::Accepted(all) => {
            let service = commit.log.service();
            for (index, Event { kind, version, document, data }) in all.iter().enumerate() {
                let kind = format!("{service}.{kind}.v{version}");
                push(index, kind, Some(document), Cow::Borrowed(&*data.0));
            }
        }
        Outcome::Rejected { code, message, of } => {
            let data = RejectedData { code: code.into(), message: message.into(), of: *of };
            push(0, common(kinds::REJECTED), None, Cow::Owned(to_raw_value(&data)?));
        }
        Outcome::Faulted { message, .. } => {
            let data = FaultedData { message: message.into() };
            push(0, common(kinds::FAULTED), None, Cow::Owned(to_raw_value(&data)?));
        }
        Outcome::Lost { reason } => {
            let data = LostData { reason: reason.into() };
            push(0, common(kinds::LOST), None, Cow::Owned(to_raw_value(&data)?));
        }
        Outcome::Duplicate { .. } | Outcome::Stale => {}
    }
    Ok(())
}

/// A commit as a subscriber receives it. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedCommit {
    /// The log.
    pub log: LogId,
    /// The seq of its first entry.
    pub first: Seq,
    /// The seq of its last entry.
    pub last: Seq,
    /// For every kind, the seq of the last entry before this commit that has it.
    pub prev: Arc<Prev>,
    /// The entries; `None` if they must be read from the journal. A message has only the entries that subscribers are
    /// shown, without the names, data and digests of their commands.
    pub entries: Option<Arc<[Entry]>>,
}

/// The commit as a subscriber in the same process receives it, without a copy.
impl From<&Commit> for ReceivedCommit {
    fn from(commit: &Commit) -> Self {
        Self {
            log: commit.log.clone(),
            first: commit.first(),
            last: commit.last(),
            prev: commit.prev.clone(),
            entries: Some(commit.entries.clone()),
        }
    }
}

impl ReceivedCommit {
    /// Whether a subscriber that reads `kinds`, and has applied everything up to `cursor`, misses
    /// nothing before this commit.
    pub fn follows(&self, cursor: Seq, kinds: &[String]) -> bool {
        // Fast path: no entry is missing.
        self.prev.iter().all(|(_, seq)| seq <= cursor)
            || kinds.iter().all(|kind| self.prev.get(kind).is_none_or(|seq| *seq <= cursor))
    }

    /// The commit as it was published; `None` if the entries are not here.
    pub fn commit(&self) -> Option<Commit> {
        let entries = self.entries.clone()?;
        Some(Commit { log: self.log.clone(), entries, prev: self.prev.clone() })
    }
}

/// Reads the body of a message.
pub fn decode(body: &str) -> Result<Vec<ReceivedCommit>, DecodeError> {
    let events: Vec<CloudEvent<'_>> = serde_json::from_str(body)?;
    // Commits with the entries read so far; `None` if they are only in the journal.
    let mut commits: Vec<(ReceivedCommit, Option<Vec<Entry>>)> = Vec::new();
    let mut from_journal = false;
    for event in events {
        if event.kind == COMMIT_TYPE {
            commits.push(read_commit(&event)?);
            from_journal = false;
            continue;
        }
        // A newer build may publish other types of events. The journal has their commits, too, and an unknown commit
        // stops no other of the message (F7).
        from_journal |= is_unknown(&event.kind);
        if from_journal && let Some((_, entries)) = commits.last_mut() {
            *entries = None;
            continue;
        }
        let seq = event.seq.parse().map(Seq).map_err(|_| DecodeError::Inconsistent("a seq"))?;
        let entries = commits.last_mut().and_then(|(commit, entries)| {
            let inside =
                commit.log.as_str() == event.log && (commit.first..=commit.last).contains(&seq);
            entries.as_mut().filter(|_| inside)
        });
        let entries = entries.ok_or(DecodeError::Inconsistent("an event outside of its commit"))?;
        read_event(&event, seq, entries)?;
    }
    let commits = commits.into_iter();
    Ok(commits
        .map(|(c, entries)| ReceivedCommit { entries: entries.map(Arc::from), ..c })
        .collect())
}

fn is_unknown(kind: &str) -> bool {
    let known = [kinds::REJECTED, kinds::FAULTED, kinds::LOST];
    kind.starts_with("fanfold.")
        && !kind.strip_suffix(".v1").is_some_and(|kind| known.contains(&kind))
}

fn read_commit(
    event: &CloudEvent<'_>,
) -> Result<(ReceivedCommit, Option<Vec<Entry>>), DecodeError> {
    let data: CommitData<'_> = serde_json::from_str(event.data.get())?;
    if data.first == Seq::ZERO || data.last < data.first {
        return Err(DecodeError::Inconsistent("a commit's first and last"));
    }
    let commit = ReceivedCommit {
        log: event.log.parse().map_err(|_| DecodeError::Inconsistent("a commit's log"))?,
        first: data.first,
        last: data.last,
        prev: Arc::new(data.prev.into_owned()),
        entries: None,
    };
    Ok((commit, (data.body == Body::Inline).then(Vec::new)))
}

fn read_event(
    event: &CloudEvent<'_>,
    seq: Seq,
    entries: &mut Vec<Entry>,
) -> Result<(), DecodeError> {
    let outcome = match event.kind.strip_suffix(".v1") {
        Some(kinds::REJECTED) => {
            let RejectedData { code, message, of } = serde_json::from_str(event.data.get())?;
            Outcome::Rejected { code: code.into_owned(), message: message.into_owned(), of }
        }
        Some(kinds::FAULTED) => {
            let FaultedData { message } = serde_json::from_str(event.data.get())?;
            let data = Raw(RawValue::NULL.to_owned());
            Outcome::Faulted { message: message.into_owned(), data, timestamp: None }
        }
        Some(kinds::LOST) => {
            let LostData { reason } = serde_json::from_str(event.data.get())?;
            Outcome::Lost { reason: reason.into_owned() }
        }
        _ => {
            let happened = read_domain_event(event)?;
            if let Some(Entry { outcome: Outcome::Accepted(events), .. }) =
                entries.last_mut().filter(|entry| entry.seq == seq)
            {
                events.push(happened);
                return Ok(());
            }
            Outcome::Accepted(vec![happened])
        }
    };
    if entries.last().is_some_and(|entry| entry.seq >= seq) {
        return Err(DecodeError::Inconsistent("the order of a commit's events"));
    }
    let origin = event.origin.as_deref().map_or_else(Origin::nobody, Origin::from_wire);
    let id = event.commandid.as_deref().and_then(|id| id.parse().ok()).and_then(CommandId::new);
    entries.push(Entry {
        seq,
        time: Time::from_stored(&event.time).ok_or(DecodeError::Inconsistent("a time"))?,
        origin,
        id: id.unwrap_or(CommandId::NONE),
        command: None,
        digest: None,
        trace: event.traceparent,
        outcome,
    });
    Ok(())
}

fn read_domain_event(event: &CloudEvent<'_>) -> Result<Event, DecodeError> {
    let inconsistent = DecodeError::Inconsistent("an event's type");
    let (service_and_kind, version) =
        event.kind.rsplit_once(".v").ok_or(DecodeError::Inconsistent("an event's type"))?;
    let (_, kind) = service_and_kind.split_once('.').ok_or(inconsistent)?;
    let inconsistent = |_| DecodeError::Inconsistent("an event's type");
    let no_subject = DecodeError::Inconsistent("an event without a subject");
    Ok(Event {
        kind: Name::new(kind).map_err(inconsistent)?,
        version: version.parse().map_err(|_| DecodeError::Inconsistent("an event's version"))?,
        document: DocumentId::new(event.subject.as_deref().ok_or(no_subject)?)
            .map_err(|_| DecodeError::Inconsistent("an event's subject"))?,
        data: Raw::from(&*event.data),
    })
}

/// The index of a log's topic among `topics` topics. It never changes.
pub fn topic_of(log: &LogId, topics: usize) -> usize {
    (super::parked::fingerprint(log.as_str().as_bytes()) % topics.max(1) as u64) as usize
}
