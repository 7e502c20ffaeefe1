//! Ports behind the fault layer. The description of a call has its arguments, the log first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::packing::MessageTopics;
use crate::ports::{
    Admission, Append, AppendError, CataloguePage, CataloguePosition, Change, CommandStream,
    Commands, CommitItem, Cursor, CursorMove, DeadLetter, DeadLetters, Env, Guarded, Journal,
    JournalAppendError, JournalLogs, JournalPage, LeaseWrite, NotAdmitted, OperatorCommands,
    OperatorJournal, OperatorView, ParkedItem, ParkedTable, ParkedView, ParkedViewPage,
    PublishError, PutRowError, RowPage, RowRange, Slot, SlotRaise, State, StateItem, StoredRow,
    StreamRecord, Token, Unavailable, ViewTable,
};
use async_trait::async_trait;
use fanfold::host::body::lease::Lease;
use fanfold::host::body::notification::{self, Message, ReceivedCommit};
use fanfold::host::body::record::Record;
use fanfold::host::limits::{PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};
use fanfold::{LogId, RowKey, Seq, StateKey, Time};

use super::{Faults, Op};

/// Topics that keep every message.
pub struct SentMessages {
    topics: usize,
    sent: Mutex<Vec<(usize, Message)>>,
}

impl SentMessages {
    /// So many topics, without messages.
    pub fn new(topics: usize) -> Arc<Self> {
        Arc::new(Self { topics, sent: Mutex::default() })
    }

    /// All messages, each with its topic, in the order in which they were published.
    pub fn all(&self) -> Vec<(usize, Message)> {
        self.sent.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl MessageTopics for SentMessages {
    fn topics(&self) -> usize {
        self.topics
    }

    async fn publish_messages(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        assert!(messages.len() <= PUBLISH_BATCH_MAX.get(), "{} messages", messages.len());
        let bytes: usize = messages.iter().map(Message::bytes).sum();
        assert!(bytes <= PUBLISH_BATCH_BYTES_MAX.get(), "{bytes} bytes");
        let sent = messages.iter().map(|message| (topic, message.clone()));
        self.sent.lock().expect("no panic").extend(sent);
        Ok(vec![Ok(()); messages.len()])
    }
}

/// A port behind the fault layer.
pub struct Faulty<P> {
    port: Arc<P>,
    faults: Faults,
}

impl<P: Send + Sync + 'static> Faulty<P> {
    /// Puts `faults` in front of `port`.
    pub fn new(port: &Arc<P>, faults: &Faults) -> Arc<Self> {
        Arc::new(Self { port: Arc::clone(port), faults: faults.clone() })
    }

    async fn call<T, E, F>(
        &self,
        op: Op,
        about: String,
        effect: impl FnOnce(Arc<P>) -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
    {
        self.faults.call(op, about, effect(Arc::clone(&self.port))).await
    }
}

#[async_trait]
impl<P: Commands + 'static> Commands for Faulty<P> {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let (about, log) = (format!("{log} +{} {:x}", append.n, append.token.0), log.clone());
        let effect = |port: Arc<P>| async move { port.append(&log, append).await };
        self.call(Op::SlotAppend, about, effect).await
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        let (about, log) = (log.to_string(), log.clone());
        self.call(Op::SlotGet, about, |port| async move { port.slot(&log).await }).await
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        let (about, log) = (log.to_string(), log.clone());
        self.call(Op::SlotGet, about, |port| async move { port.batch(&log).await }).await
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let about = format!("after {after:?}");
        let effect = |port: Arc<P>| async move { port.catalogue(after, limit).await };
        self.call(Op::Catalogue, about, effect).await
    }
}

#[async_trait]
impl<P: OperatorCommands + 'static> OperatorCommands for Faulty<P> {
    async fn raise(
        &self,
        log: &LogId,
        to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable> {
        let (about, log) = (format!("{log} to {to}"), log.clone());
        let effect = |port: Arc<P>| async move { port.raise(&log, to, at, token).await };
        self.call(Op::SlotRaise, about, effect).await
    }
}

impl<P: Admission> Admission for Faulty<P> {
    fn admit(&self, log: &LogId) -> Result<(), NotAdmitted> {
        if self.faults.refuse(Op::Admit, log.as_str()) {
            return Err(NotAdmitted {
                reason: "the test says so".to_owned(),
                retry_after_s: 7,
                is_full: false,
            });
        }
        self.port.admit(log)
    }
}

#[async_trait]
impl<P: CommandStream + 'static> CommandStream for Faulty<P> {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        let parts: Vec<String> = records.iter().map(describe).collect();
        let (port, records) = (Arc::clone(&self.port), records.to_vec());
        let effect = |left_out: Vec<usize>| async move {
            let kept = records.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
            let kept: Vec<StreamRecord> = kept.map(|(_, record)| record.clone()).collect();
            let put = port.put_records(&kept).await?;
            Ok(with_gaps(put, &left_out))
        };
        self.faults.call_in_parts(Op::PutRecords, &parts, effect).await
    }
}

/// `ledger/org:acme 4-6`, or `nudge ledger/org:acme`.
fn describe(record: &StreamRecord) -> String {
    match Record::decode(&record.data).ok().map(|record| record.parts) {
        Some(parts) => match (parts.first(), parts.last()) {
            (Some(first), Some(last)) => format!("{} {}-{}", record.key, first.first(), last.last),
            _ => format!("nudge {}", record.key),
        },
        None => format!("{} ?", record.key),
    }
}

/// `ledger/org:acme 4-6`, for each commit; with ` in the journal`, if it is not inline.
fn describe_message(message: &Message) -> String {
    let commits = notification::decode(&message.body).unwrap_or_default();
    let describe = |commit: &ReceivedCommit| {
        let place = if commit.entries.is_some() { "" } else { " in the journal" };
        format!("{} {}-{}{place}", commit.log, commit.first, commit.last)
    };
    commits.iter().map(describe).collect::<Vec<_>>().join(" ")
}

/// The results of the parts that were passed on, with errors for those left out.
fn with_gaps<E: From<Unavailable>>(
    passed: Vec<Result<(), E>>,
    left_out: &[usize],
) -> Vec<Result<(), E>> {
    let mut results = passed;
    // Ascending, so that each is inserted at its own index.
    for at in left_out {
        results.insert(*at, Err(Unavailable::Throttled { hop: "port" }.into()));
    }
    results
}

#[async_trait]
impl<P: Journal + 'static> Journal for Faulty<P> {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        let about = format!("{log} {}-{}", commit.first, commit.last());
        let (log, commit) = (log.clone(), commit.clone());
        let effect = |port: Arc<P>| async move { port.append(&log, &commit).await };
        self.call(Op::JournalAppend, about, effect).await
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        let (about, log) = (format!("{log} from {from}"), log.clone());
        let effect = |port: Arc<P>| async move { port.read(&log, from, limit).await };
        self.call(Op::JournalRead, about, effect).await
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        let (about, log) = (log.to_string(), log.clone());
        self.call(Op::JournalTail, about, |port| async move { port.tail(&log).await }).await
    }
}

#[async_trait]
impl<P: OperatorJournal + 'static> OperatorJournal for Faulty<P> {
    async fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<JournalLogs, Unavailable> {
        let (about, after) = (format!("{after:?} {limit}"), after.cloned());
        let effect = |port: Arc<P>| async move { port.logs(after.as_ref(), limit).await };
        self.call(Op::JournalLogs, about, effect).await
    }
}

#[async_trait]
impl<P: State + 'static> State for Faulty<P> {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let (about, log) = (format!("{log} {keys:?}"), log.clone());
        let keys = keys.to_vec();
        self.call(Op::StateGet, about, |port| async move { port.get(&log, &keys).await }).await
    }

    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        let about = format!("{log} {key:?} {}", item.seq);
        let (log, key, item) = (log.clone(), key.clone(), item.clone());
        let effect = |port: Arc<P>| async move { port.put(&log, &key, &item).await };
        self.call(Op::StatePut, about, effect).await
    }
}

#[async_trait]
impl<P: ParkedTable + 'static> ParkedTable for Faulty<P> {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        let about = format!("{log} {} {}", item.seq, item.identity);
        let (log, item) = (log.clone(), item.clone());
        self.call(Op::Park, about, |port| async move { port.park(&log, &item).await }).await
    }

    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let (about, log) = (log.to_string(), log.clone());
        let (seq, identity) = (from.0, from.1.to_owned());
        let effect = |port: Arc<P>| async move { port.list(&log, (seq, &identity), limit).await };
        self.call(Op::ParkedList, about, effect).await
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        let about = format!("{log} {seq} {identity}");
        let (log, identity) = (log.clone(), identity.to_owned());
        let effect = |port: Arc<P>| async move { port.remove(&log, seq, &identity).await };
        self.call(Op::ParkedRemove, about, effect).await
    }
}

#[async_trait]
impl<P: MessageTopics + 'static> MessageTopics for Faulty<P> {
    fn topics(&self) -> usize {
        self.port.topics()
    }

    async fn publish_messages(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        let parts: Vec<String> = messages.iter().map(describe_message).collect();
        let refused: Vec<bool> = parts.iter().map(|part| self.faults.refuses(part)).collect();
        let (port, messages) = (Arc::clone(&self.port), messages.to_vec());
        let effect = move |left_out: Vec<usize>| async move {
            let kept = messages.iter().zip(&refused).enumerate();
            let kept = kept.filter(|(at, (_, refused))| !left_out.contains(at) && !**refused);
            let kept: Vec<Message> = kept.map(|(_, (message, _))| message.clone()).collect();
            let mut published = port.publish_messages(topic, &kept).await?.into_iter();
            let results = refused.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
            let results = results.map(|(_, refused)| match refused {
                true => Err(PublishError::Refused("the test says so".to_owned())),
                false => published.next().expect("one result per message"),
            });
            Ok(with_gaps(results.collect(), &left_out))
        };
        self.faults.call_in_parts(Op::Publish, &parts, effect).await
    }
}

#[async_trait]
impl<P: ViewTable + 'static> ViewTable for Faulty<P> {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        let (about, log) = (log.to_string(), log.clone());
        let is_ahead = self.faults.refuse(Op::CursorAhead, &about);
        let mut cursor =
            self.call(Op::Cursor, about, |port| async move { port.cursor(&log).await }).await?;
        if let Some(cursor) = cursor.as_mut().filter(|_| is_ahead) {
            cursor.seq = cursor.seq.plus(6);
        }
        Ok(cursor)
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        let (about, log, keys) = (format!("{log} {keys:?}"), log.clone(), keys.to_vec());
        self.call(Op::Rows, about, |port| async move { port.rows(&log, &keys).await }).await
    }

    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        let about = format!("{log} {key} {}", row.seq);
        let (log, key, row) = (log.clone(), key.clone(), row.clone());
        let effect = |port: Arc<P>| async move { port.put_row(&log, &key, &row, loaded).await };
        self.call(Op::PutRow, about, effect).await
    }

    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable> {
        let (about, log) = (format!("{log} {to}"), log.clone());
        self.call(Op::MoveCursor, about, |port| async move { port.move_cursor(&log, to).await })
            .await
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        let (about, log) = (format!("{log} {target}"), log.clone());
        let effect = |port: Arc<P>| async move { port.mark_behind(&log, target).await };
        self.call(Op::MarkBehind, about, effect).await
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        let (about, log, parked) = (format!("{log} {at}"), log.clone(), parked.clone());
        self.call(Op::ParkView, about, |port| async move { port.park(&log, at, &parked).await })
            .await
    }

    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable> {
        let (about, log, parked) = (format!("{log} {to:?}"), log.clone(), parked.clone());
        let effect = |port: Arc<P>| async move { port.release(&log, &parked, to).await };
        self.call(Op::ReleaseView, about, effect).await
    }

    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable> {
        let (about, log) = (format!("{log} {}", lease.attempts), log.clone());
        let (before, lease) = (before.copied(), *lease);
        let effect =
            |port: Arc<P>| async move { port.replace_lease(&log, before.as_ref(), &lease).await };
        self.call(Op::ReplaceLease, about, effect).await
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let (about, log, range) = (log.to_string(), log.clone(), range.clone());
        self.call(Op::Scan, about, |port| async move { port.scan(&log, &range).await }).await
    }
}

#[async_trait]
impl<P: OperatorView + 'static> OperatorView for Faulty<P> {
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable> {
        let (about, after) = (format!("{after:?} {limit}"), after.cloned());
        let effect = |port: Arc<P>| async move { port.parked(after.as_ref(), limit).await };
        self.call(Op::ParkedViews, about, effect).await
    }

    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable> {
        let (about, log) = (format!("{log} {to}"), log.clone());
        let (parked, then) = (parked.clone(), then.cloned());
        let effect = |port: Arc<P>| async move {
            port.replace_parked(&log, &parked, to, then.as_ref()).await
        };
        self.call(Op::ReplaceParked, about, effect).await
    }

    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable> {
        let (about, log, parked) = (format!("{log} {limit}"), log.clone(), parked.clone());
        let effect = |port: Arc<P>| async move { port.clear(&log, &parked, limit).await };
        self.call(Op::ClearView, about, effect).await
    }
}

#[async_trait]
impl<P: DeadLetters + 'static> DeadLetters for Faulty<P> {
    async fn list(
        &self,
        view: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let (about, view) = (view.to_owned(), view.to_owned());
        let effect = |port: Arc<P>| async move { port.list(&view, after, limit).await };
        self.call(Op::LetterList, about, effect).await
    }

    async fn remove(&self, view: &str, id: u64) -> Result<(), Unavailable> {
        let (about, view) = (format!("{view} {id}"), view.to_owned());
        self.call(Op::LetterRemove, about, |port| async move { port.remove(&view, id).await }).await
    }
}

/// A clock that only moves by sleeps and by [`ManualEnv::pass`], and randomness that is the same in
/// every run.
pub struct ManualEnv {
    clock: Arc<AtomicU64>,
    random: AtomicU64,
    /// The index of the build that runs.
    build: AtomicUsize,
    faults: Faults,
}

/// The builds that can run, in this order.
const BUILDS: [&str; 3] = ["first", "second", "third"];

impl ManualEnv {
    /// The clock begins at noon; `seed` is for the randomness.
    pub fn new(seed: u64, faults: &Faults) -> Arc<Self> {
        let clock = Arc::new(AtomicU64::new(12 * 60 * 60 * 1_000));
        let (random, build) = (AtomicU64::new(seed), AtomicUsize::new(0));
        Arc::new(Self { clock, random, build, faults: faults.clone() })
    }

    /// Deploys the next build: the first is `first`, then `second` and `third`.
    pub fn deploy(&self) {
        self.build.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves the clock on by `ms` milliseconds.
    pub fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }
}

#[async_trait]
impl Env for ManualEnv {
    fn now(&self) -> Time {
        Time(self.clock.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn build(&self) -> Option<&str> {
        BUILDS.get(self.build.load(Ordering::Relaxed)).copied()
    }

    async fn sleep(&self, ms: u64) {
        let clock = Arc::clone(&self.clock);
        let effect = async move {
            clock.fetch_add(ms, Ordering::Relaxed);
            Ok::<(), Unavailable>(())
        };
        // A sleep cannot fail; tests only run something during it.
        let (Ok(()) | Err(_)) = self.faults.call(Op::Sleep, ms.to_string(), effect).await;
    }
}
