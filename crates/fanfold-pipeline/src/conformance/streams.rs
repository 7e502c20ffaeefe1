//! [`CommandStream`], [`Topic`] and [`DeadLetters`], as far as they can be observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::entry::Outcome;
use fanfold::host::body::notification::{Attributes, Commit, Message, ReceivedCommit};
use fanfold::host::limits::{
    NOTIFICATION_BYTES_MAX, PUBLISH_BATCH_MAX, PUT_RECORDS_MAX, STREAM_RECORD_BYTES_MAX,
};
use fanfold::{CommandId, Entry, LogId, Origin, Seq, Time};

use super::{LOOKS_MAX, log, must};
use crate::packing::MessageTopics;
use crate::ports::{CommandStream, DeadLetter, DeadLetters, StreamRecord, Topic, Unavailable};

/// Sends failed items again until all are accepted.
async fn until_taken<T: Clone, E>(
    items: &[T],
    mut send: impl AsyncFnMut(&[T]) -> Result<Vec<Result<(), E>>, Unavailable>,
) {
    let mut left: Vec<T> = items.to_vec();
    for _ in 0..LOOKS_MAX {
        match send(&left).await {
            Ok(results) => {
                assert_eq!(results.len(), left.len(), "one result per item");
                let failed = left.into_iter().zip(results).filter(|(_, result)| result.is_err());
                left = failed.map(|(item, _)| item).collect();
            }
            Err(
                e @ (Unavailable::Failed { .. }
                | Unavailable::Full { .. }
                | Unavailable::Refused { .. }
                | Unavailable::Damaged { .. }),
            ) => {
                panic!("sending: {e}")
            }
            Err(Unavailable::Throttled { .. } | Unavailable::TimedOut { .. }) => {}
        }
        if left.is_empty() {
            return;
        }
    }
    panic!("{} of {} items were never taken", left.len(), items.len());
}

/// The command stream. `arrived` returns the records since its last call. The suite calls it until
/// no record is missing, so it may wait a little.
pub async fn command_stream(
    port: &dyn CommandStream,
    prefix: &str,
    mut arrived: impl AsyncFnMut() -> Vec<StreamRecord>,
) {
    let key = |i: usize| log(prefix, &format!("records-{i}"));
    let record = |i: usize| StreamRecord { key: key(i % 37), data: i.to_string().into() };
    let small: Vec<StreamRecord> = (0..PUT_RECORDS_MAX.get()).map(record).collect();
    let large = |i: usize| {
        let data = vec![i as u8; STREAM_RECORD_BYTES_MAX - 256];
        StreamRecord { key: key(i), data: data.into() }
    };
    let large: Vec<StreamRecord> = (0..5).map(large).collect();
    let none = must("putting no records", port.put_records(&[]).await);
    assert!(none.is_empty(), "one result per record");
    until_taken(&small, async |records| port.put_records(records).await).await;
    until_taken(&large, async |records| port.put_records(records).await).await;

    let expected: Vec<StreamRecord> = small.into_iter().chain(large).collect();
    let keys: Vec<&LogId> = expected.iter().map(|record| &record.key).collect();
    let mut seen: Vec<StreamRecord> = Vec::new();
    let mut missing = expected.len();
    for _ in 0..LOOKS_MAX {
        seen.extend(arrived().await.into_iter().filter(|record| keys.contains(&&record.key)));
        missing = expected.iter().filter(|record| !seen.contains(record)).count();
        if missing == 0 {
            break;
        }
    }
    assert_eq!(missing, 0, "no record is lost");
    let strange = seen.iter().find(|record| !expected.contains(record));
    assert_eq!(strange, None, "a record arrives as it was put");
}

/// The topic. `arrived` returns the commits that a subscriber of everything has received since its
/// last call. The suite calls it until no commit is missing, so it may wait a little.
pub async fn topic(
    port: &dyn Topic,
    prefix: &str,
    mut arrived: impl AsyncFnMut() -> Vec<ReceivedCommit>,
) {
    let commits: Vec<Commit> =
        (0..PUBLISH_BATCH_MAX.get() + 1).map(|i| commit(log(prefix, &i.to_string()))).collect();
    let commits: Vec<&Commit> = commits.iter().collect();
    until_taken(&commits, async |commits| Ok(port.publish(commits, Time(u64::MAX)).await)).await;
    let none = port.publish(&[], Time(u64::MAX)).await;
    assert!(none.is_empty(), "one result per commit");
    let mut missing: Vec<&Commit> = commits;
    for _ in 0..LOOKS_MAX {
        let arrived = arrived().await;
        // A message shows less of an entry than the journal has.
        let is_same = |commit: &Commit, other: &ReceivedCommit| {
            let entries = other.entries.as_deref().map(|entries| entries.len());
            commit.log == other.log
                && (commit.first(), commit.last()) == (other.first, other.last)
                && commit.prev == other.prev
                && entries.is_none_or(|entries| entries == commit.entries.len())
        };
        missing.retain(|commit| !arrived.iter().any(|other| is_same(commit, other)));
        if missing.is_empty() {
            return;
        }
    }
    panic!("{} commits were lost, the first is {:?}", missing.len(), missing.first());
}

/// The topics of a provider that takes messages. `arrived` returns the bodies that a subscriber of
/// everything has received since its last call. The suite calls it until no message is missing, so
/// it may wait a little.
pub async fn message_topics(
    port: &dyn MessageTopics,
    prefix: &str,
    mut arrived: impl AsyncFnMut() -> Vec<Bytes>,
) {
    assert!(port.topics() >= 1, "there is at least one topic");
    let message = |text: String| {
        let log = log(prefix, &text);
        let attributes = Attributes {
            services: [log.service().to_owned()].into(),
            kinds: [format!("{}.happened", log.service())].into(),
            partitions: [log.partition().to_owned()].into(),
        };
        Message { body: format!("[\"{log}\"]"), attributes }
    };
    let mut expected: BTreeMap<Bytes, usize> = BTreeMap::new();
    for topic in 0..port.topics() {
        let mut batch: Vec<Message> =
            (0..PUBLISH_BATCH_MAX.get()).map(|i| message(format!("{topic}-{i}"))).collect();
        for batch in [std::mem::take(&mut batch), vec![largest(message(format!("{topic}-l")))]] {
            until_taken(&batch, async |messages| port.publish_messages(topic, messages).await)
                .await;
            expected.extend(batch.into_iter().map(|message| (message.body.into(), 0)));
        }
        let none = must("publishing nothing", port.publish_messages(topic, &[]).await);
        assert!(none.is_empty(), "one result per message");
    }
    for _ in 0..LOOKS_MAX {
        for body in arrived().await {
            if let Some(times) = expected.get_mut(&body) {
                *times += 1;
            }
        }
        if expected.values().all(|times| *times > 0) {
            return;
        }
    }
    let lost: Vec<&Bytes> =
        expected.iter().filter(|(_, n)| **n == 0).map(|(body, _)| body).collect();
    panic!("{} messages were lost, the first is {:?}", lost.len(), lost.first());
}

fn commit(log: LogId) -> Commit {
    let reason = "the test says so".to_owned();
    let entry = Entry {
        seq: Seq(1),
        time: Time(1),
        origin: Origin::nobody(),
        id: CommandId::NONE,
        command: None,
        digest: None,
        trace: None,
        outcome: Outcome::Lost { reason },
    };
    Commit { log, entries: [entry].into(), prev: Arc::default() }
}

/// The same message, filled up to the size limit of a topic.
fn largest(mut message: Message) -> Message {
    let fill = NOTIFICATION_BYTES_MAX.get() - message.bytes() - 3;
    message.body.insert_str(message.body.len() - 1, &format!(",\"{}\"", "x".repeat(fill)));
    message
}

/// The dead letters of `view`, which has none before. `kill` makes messages with these bodies dead
/// letters of the view, in this order, and may wait until they are. `show_again` waits until no
/// letter that was listed is hidden.
pub async fn dead_letters(
    port: &dyn DeadLetters,
    view: &str,
    mut kill: impl AsyncFnMut(Vec<Bytes>),
    mut show_again: impl AsyncFnMut(),
) {
    assert_eq!(letters(port, view, 10).await, [], "the view has no dead letters yet");
    let bodies: Vec<Bytes> = (0..5).map(|i| Bytes::from(format!("[\"{i}\"]"))).collect();
    kill(bodies.clone()).await;

    for (limit, shown) in [(10, 5), (2, 2), (5, 5)] {
        let listed = letters(port, view, limit).await;
        assert_eq!(bodies_of(&listed), bodies[..shown], "the oldest {limit}, the oldest first");
        let mut ids: Vec<u64> = listed.iter().map(|letter| letter.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), listed.len(), "ids are unique per view");
        show_again().await;
    }

    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = must("listing dead letters", port.list(view, after, 2).await);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        walked.extend(bodies_of(&page));
    }
    assert_eq!(walked, bodies, "the pages show each letter once");
    show_again().await;

    let listed = letters(port, view, 10).await;
    must("removing a dead letter", port.remove(view, listed[1].id).await);
    must("removing it again", port.remove(view, listed[1].id).await);
    must("removing none", port.remove(view, u64::MAX).await);
    show_again().await;
    let left = [&bodies[..1], &bodies[2..]].concat();
    let listed = letters(port, view, 10).await;
    assert_eq!(bodies_of(&listed), left, "a removed letter is gone, the rest stays");
    for letter in listed {
        must("removing a dead letter", port.remove(view, letter.id).await);
    }
    show_again().await;
    assert_eq!(letters(port, view, 10).await, [], "nothing is left");
}

/// The dead letters of a provider that keeps those of all views in one place, and hides none.
pub async fn dead_letters_of_views(
    port: &dyn DeadLetters,
    view: &str,
    mut kill: impl AsyncFnMut(Vec<Bytes>),
) {
    dead_letters(port, view, &mut kill, async || {}).await;
    kill((0..3).map(|i| Bytes::from(format!("[\"{i}\"]"))).collect()).await;
    let listed = letters(port, view, 10).await;
    assert_eq!(letters(port, view, 2).await, listed[..2], "none is hidden, and ids stay");
    must("removing from another view", port.remove("another-view", listed[0].id).await);
    assert_eq!(letters(port, view, 10).await, listed, "a view removes only its own letters");
    let elsewhere = letters(port, "another-view", 10).await;
    assert_eq!(elsewhere, [], "each view has its own dead letters");
    must("removing a dead letter", port.remove(view, listed[1].id).await);
    let left = [&listed[..1], &listed[2..]].concat();
    assert_eq!(letters(port, view, 10).await, left, "a removed letter is gone, the rest stays");
}

async fn letters(port: &dyn DeadLetters, view: &str, limit: usize) -> Vec<DeadLetter> {
    must("listing dead letters", port.list(view, None, limit).await)
}

fn bodies_of(letters: &[DeadLetter]) -> Vec<Bytes> {
    letters.iter().map(|letter| letter.body.clone()).collect()
}
