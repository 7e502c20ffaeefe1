//! F7: an item that Fanfold did not write, or not completely, stops no log but its own.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::limits::STREAM_RECORD_BYTES_MAX;
use fanfold::{LogId, Seq, StateKey, Time};
use fanfold_aws::dynamo::{
    BUCKETS, DynamoCommands, DynamoJournal, DynamoParked, DynamoState, DynamoSweepPosition, bucket,
};
use fanfold_aws::names::attribute::{BODY, BUCKET, LOG, N, PK, SEQ, SK};
use fanfold_pipeline::ports::{
    Append, CataloguePosition, Commands, CommitItem, Journal, JournalAppendError, Nonce,
    ParkedItem, ParkedTable, State, Token, Unavailable,
};

use crate::dynamo::Dynamo;

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Puts an item of any shape.
async fn put<const N: usize>(dynamo: &Dynamo, table: &str, item: [(&str, AttributeValue); N]) {
    let item: HashMap<String, AttributeValue> =
        item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let put = dynamo.aws.dynamodb.put_item().table_name(table).set_item(Some(item));
    put.send().await.expect("a put");
}

#[tokio::test]
async fn foreign_rows_do_not_end_the_walk_over_the_catalogue() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.commands();
    let commands = DynamoCommands::new(&dynamo.aws, &table);
    let logs: BTreeSet<LogId> =
        (0..5).map(|n| format!("ledger/org:o{n}").parse().expect("a log")).collect();
    for log in &logs {
        let append = Append { n: 1, body: Bytes::from_static(b"[]"), at: Time(1), token: Token(1) };
        commands.append(log, append).await.expect("an append");
    }
    // Foreign rows before, between and after the logs of a bucket, and alone in a bucket.
    let crowded = bucket(logs.first().expect("a log"));
    let alone = (0..BUCKETS).find(|n| logs.iter().all(|log| bucket(log) != *n)).expect("a bucket");
    for (bucket, name) in [(crowded, "a"), (crowded, "ledger"), (crowded, "z"), (crowded, "zz")] {
        put(&dynamo, &table, [(PK, text(name)), (BUCKET, number(bucket))]).await;
    }
    put(&dynamo, &table, [(PK, text("foreign")), (BUCKET, number(alone))]).await;

    for limit in [1, 2, 3, 100] {
        let (mut listed, mut at, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = commands.catalogue(at, limit).await.expect("a page");
            assert!(page.logs.len() <= limit);
            listed.extend(page.logs);
            pages += 1;
            assert!(pages <= 2 * logs.len() + 1, "the walk makes no progress");
            at = page.next;
            if at.is_none() {
                break;
            }
        }
        assert_eq!(listed.len(), logs.len(), "each once, {limit} at a time");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), logs);
    }
}

#[tokio::test]
async fn a_position_that_cannot_be_read_is_the_start_of_the_catalogue() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.state();
    let positions = DynamoSweepPosition::new(&dynamo.aws, &table);
    let position = CataloguePosition { bucket: 7, log: None };
    let key = || [(PK, text("sweep")), (SK, text("position"))];
    for (name, value) in
        [(BUCKET, number(300)), (BUCKET, text("x")), (LOG, number(1)), (LOG, text("foreign"))]
    {
        positions.put(Some(&position)).await.expect("a put");
        let [pk, sk] = key();
        let bucket = if name == BUCKET { value.clone() } else { number(7) };
        let log = if name == LOG { value } else { text("ledger/org:acme") };
        put(&dynamo, &table, [pk, sk, (BUCKET, bucket), (LOG, log)]).await;
        assert_eq!(positions.get().await.expect("a position"), None, "{name}");
        positions.put(Some(&position)).await.expect("a put");
        assert_eq!(positions.get().await.expect("a position"), Some(position.clone()));
    }
}

fn acme() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

/// The item of a log under a sort key, as it is stored.
async fn raw(dynamo: &Dynamo, table: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let get = dynamo.aws.dynamodb.get_item().table_name(table);
    let get = get.key(PK, text(acme().as_str())).key(SK, text(sk)).consistent_read(true);
    get.send().await.expect("a read").item.expect("an item")
}

/// A put without an answer "MAY still take effect later": here after the item and its parts were
/// removed.
#[tokio::test]
async fn an_item_without_its_parts_hides_no_other_item() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.parked();
    let parked = DynamoParked::new(&dynamo.aws, &table);
    // Random bytes, which cannot be compressed.
    let content =
        Content::Bytes((0..STREAM_RECORD_BYTES_MAX / 2).map(|_| rand::random()).collect());
    let large =
        Parked { reason: Reason::Undecodable, at: Time(1), detail: "a test".to_owned(), content };
    let body = large.encode().expect("JSON").into();
    let item = ParkedItem { seq: Seq(4), identity: large.identity(), body };
    parked.park(&acme(), &item).await.expect("parking");
    let late = raw(&dynamo, &table, &format!("{:020}#{}", 4, item.identity)).await;
    assert!(late.contains_key(N), "it is in parts");
    parked.remove(&acme(), item.seq, &item.identity).await.expect("removing");
    let put = dynamo.aws.dynamodb.put_item().table_name(&table).set_item(Some(late));
    put.send().await.expect("a put");

    let other = ParkedItem { seq: Seq(5), identity: "ann#5".to_owned(), body: item.body.clone() };
    parked.park(&acme(), &other).await.expect("parking");
    let listed = parked.list(&acme(), (Seq::ZERO, ""), 10).await.expect("a list");
    assert!(listed[1..] == [other.clone()], "{} items", listed.len());
    assert_eq!((listed[0].seq, &listed[0].identity), (item.seq, &item.identity));
    assert!(Parked::decode(&listed[0].body).is_err(), "no stage takes it up");
    parked.remove(&acme(), item.seq, &item.identity).await.expect("removing");
    assert!(parked.list(&acme(), (Seq::ZERO, ""), 10).await.expect("a list") == [other]);
}

/// An item that is not a parked item waits for an operator, too.
#[tokio::test]
async fn a_foreign_item_hides_no_parked_item() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.parked();
    let parked = DynamoParked::new(&dynamo.aws, &table);
    let key = |sk| [(PK, text(acme().as_str())), (SK, text(sk))];
    let [pk, sk] = key("00000000000000000007#ann#7");
    put(&dynamo, &table, [pk, sk, (SEQ, number(7))]).await;
    let [pk, sk] = key("foreign");
    put(&dynamo, &table, [pk, sk, (BODY, text("x"))]).await;
    let body = Bytes::from_static(b"whole");
    let whole = ParkedItem { seq: Seq(8), identity: "ann#8".to_owned(), body };
    parked.park(&acme(), &whole).await.expect("parking");
    let listed = parked.list(&acme(), (Seq::ZERO, ""), 10).await.expect("a list");
    let none = |seq, identity: &str| ParkedItem {
        seq: Seq(seq),
        identity: identity.to_owned(),
        body: Bytes::new(),
    };
    assert_eq!(listed, [none(7, "ann#7"), whole, none(0, "")]);
    assert!(Parked::decode(b"").is_err(), "no stage takes it up");
}

/// Commits are read up to a damaged one. A read of the damaged one is an error that a retry cannot
/// mend, unlike an outage.
#[tokio::test]
async fn a_damaged_commit_is_told_apart_from_an_outage() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.journal();
    let journal = DynamoJournal::new(&dynamo.aws, &table);
    let commit = |seq| CommitItem {
        first: Seq(seq),
        n: 1,
        at: Time(1),
        nonce: Nonce(u128::from(seq)),
        body: Bytes::from_static(b"body"),
    };
    for seq in [1, 2, 4] {
        journal.append(&acme(), &commit(seq)).await.expect("an append");
    }
    let key = [(PK, text(acme().as_str())), (SK, number(3))];
    let [pk, sk] = key.clone();
    put(&dynamo, &table, [pk, sk, (N, number(1))]).await;
    let page = journal.read(&acme(), Seq(1), 10).await.expect("a page");
    assert_eq!((page.commits, page.more), (vec![commit(1), commit(2)], true));
    let page = journal.read(&acme(), Seq(4), 10).await.expect("a page");
    assert_eq!(page.commits, [commit(4)]);
    let damaged = |error: &Unavailable| matches!(error, Unavailable::Damaged { .. });
    let error = journal.read(&acme(), Seq(3), 10).await.expect_err("it cannot be read");
    assert!(damaged(&error), "{error}");
    match journal.append(&acme(), &commit(3)).await {
        Err(JournalAppendError::Unavailable(error)) => assert!(damaged(&error), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// If a damaged document counted as missing, it would be folded from nothing.
#[tokio::test]
async fn a_damaged_document_is_not_a_missing_one() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.state();
    let state = DynamoState::new(&dynamo.aws, &table);
    let keys = [StateKey::head(1), StateKey::head(2)];
    let [pk, sk] = [(PK, text(acme().as_str())), (SK, text(keys[0].as_str()))];
    put(&dynamo, &table, [pk, sk, (SEQ, number(3))]).await;
    for keys in [&keys[..1], &keys[..]] {
        for read in [state.get(&acme(), keys).await, state.heads(&acme(), keys).await] {
            let error = read.expect_err("it has no body");
            assert!(matches!(error, Unavailable::Damaged { .. }), "{error}");
        }
    }
}
