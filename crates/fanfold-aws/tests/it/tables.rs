//! Single adapters over DynamoDB, beyond what the conformance suite can check on every provider.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use fanfold::host::limits::STREAM_RECORD_BYTES_MAX;
use fanfold::{DocumentId, LogId, Seq, StateKey, Time};
use fanfold_aws::dynamo::{
    DynamoJournal, DynamoParked, DynamoState, DynamoSweepPosition, DynamoViewTable,
};
use fanfold_pipeline::ports::{
    CataloguePosition, CommitItem, Cursor, Journal, Nonce, OperatorView, ParkedItem, ParkedTable,
    ParkedView, ParkedViewPage, State, StateItem, StoredRow, Unavailable, ViewTable,
};

use crate::dynamo::Dynamo;
use crate::wire::Trouble;

const ALWAYS: usize = usize::MAX;

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

#[tokio::test]
async fn unprocessed_keys_are_requested_again() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.state();
    let state = DynamoState::new(&dynamo.aws, &table);
    let document = |i: u64| DocumentId::new(format!("document-{i}")).expect("a document");
    let keys: Vec<StateKey> = (1..=7).map(|i| StateKey::document(1, &document(i))).collect();
    for (seq, key) in (1..).zip(&keys) {
        let item = StateItem { seq: Seq(seq), body: Bytes::from(format!("{seq}")) };
        state.put(&log(), key, &item).await.expect("a put");
    }
    for (troubles, calls) in [
        (vec![], 1),
        (vec![3], 2),
        (vec![3, 3], 3),
        (vec![0, 0, 0, 1, 0, 0, 0, 0, 1], 10),
        (vec![0; 5], 6),
    ] {
        dynamo.wire.seen();
        for keys in &troubles {
            dynamo.wire.trouble("BatchGetItem", &table, 1, Trouble::OnlyKeys(*keys));
        }
        // A repeated key counts once.
        let twice: Vec<StateKey> = keys.iter().chain(&keys).cloned().collect();
        let found = state.get(&log(), &twice).await.expect("a read");
        let seqs: Vec<u64> = found.iter().flatten().map(|item| item.seq.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7], "{troubles:?}");
        assert_eq!(dynamo.wire.seen().len(), calls, "{troubles:?}");
    }
    dynamo.wire.trouble("BatchGetItem", &table, ALWAYS, Trouble::OnlyKeys(0));
    let error = state.get(&log(), &keys).await.expect_err("nothing is ever processed");
    assert!(matches!(error, Unavailable::Throttled { .. }), "{error:?}");
    assert_eq!(dynamo.wire.count("BatchGetItem", &table), 6, "bounded");
}

#[tokio::test]
async fn a_throttled_call_succeeds_after_a_retry() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.state();
    let state = DynamoState::new(&dynamo.aws, &table);
    let key = StateKey::head(1);
    let item = StateItem { seq: Seq(1), body: Bytes::from_static(b"{}") };
    let before = dynamo.aws.meter.snapshot();
    for operation in ["PutItem", "GetItem"] {
        let throttled = Trouble::Answer(400, "ProvisionedThroughputExceededException");
        dynamo.wire.trouble(operation, &table, 3, throttled);
    }
    state.put(&log(), &key, &item).await.expect("a put");
    let found = state.get(&log(), std::slice::from_ref(&key)).await.expect("a read");
    assert_eq!(found, [Some(item)]);
    let spent = dynamo.aws.meter.snapshot() - &before;
    assert_eq!((spent.calls_of("PutItem"), spent.calls_of("GetItem")), (4, 4));
    let units = spent.of(&table);
    assert_eq!((units.write, units.read), (1.0, 1.0), "throttled attempts cost nothing");
}

#[tokio::test]
async fn a_journal_is_read_over_several_pages() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.journal();
    let journal = DynamoJournal::new(&dynamo.aws, &table);
    let commit = |i: u64| CommitItem {
        first: Seq(i * 3 + 1),
        n: 3,
        at: Time(i),
        nonce: Nonce(i.into()),
        body: vec![i as u8; 300 * 1024].into(),
    };
    let commits: Vec<CommitItem> = (0..10).map(commit).collect();
    for commit in &commits {
        journal.append(&log(), commit).await.expect("an append");
    }
    // Also from inside a commit, and by a process that knows no boundary of the log.
    for from in [1, 2, 6, 7] {
        let journal = DynamoJournal::new(&dynamo.aws, &table);
        let expected: Vec<&CommitItem> =
            commits.iter().filter(|commit| commit.last() >= Seq(from)).collect();
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut next = Seq(from);
        loop {
            let page = journal.read(&log(), next, 100).await.expect("a read");
            let bytes: usize = page.commits.iter().map(|commit| commit.body.len()).sum();
            assert!(bytes <= 5 * 300 * 1024, "a page has about 1 MiB: {bytes}");
            next = page.commits.last().expect("a commit").last().next();
            found.extend(page.commits);
            pages += 1;
            if !page.more {
                break;
            }
        }
        assert!(found.iter().eq(expected), "all commits from {from} on");
        assert!(pages >= 3, "3 MB are no single page: {pages}");
    }
}

/// A parked body of any size is neither lost nor cut off (F8).
#[tokio::test]
async fn a_body_larger_than_an_item_is_parked_in_parts() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.parked();
    let parked = DynamoParked::new(&dynamo.aws, &table);
    let item = |seq: u64, bytes: usize, fill: u8| ParkedItem {
        seq: Seq(seq),
        identity: "bytes#0011".to_owned(),
        body: vec![fill; bytes].into(),
    };
    let sizes = [STREAM_RECORD_BYTES_MAX + 4_096, 350 * 1024, 350 * 1024 + 1, 700 * 1024, 10];
    let items: Vec<ParkedItem> =
        (1..).zip(sizes).map(|(seq, bytes)| item(seq, bytes, seq as u8)).collect();
    for item in &items {
        parked.park(&log(), item).await.expect("parking");
    }
    let listed = parked.list(&log(), (Seq(0), ""), 10).await.expect("a list");
    assert!(listed == items, "parked items are listed whole");
    let listed = parked.list(&log(), (Seq(2), ""), 2).await.expect("a list");
    assert!(listed == items[1..3], "parts do not count");
    assert_eq!(dynamo.partition_keys(&table).await.len(), 5 + 2 + 1 + 1, "items and parts");

    // The item is replaced by the same body, another large one, a small one and a large one, then removed.
    for (bytes, fill, parts) in
        [(sizes[0], 1, 3), (sizes[0], 9, 3), (500_000, 9, 2), (20, 9, 1), (sizes[0], 9, 3)]
    {
        let item = item(1, bytes, fill);
        parked.park(&log(), &item).await.expect("parking");
        let listed = parked.list(&log(), (Seq(0), ""), 1).await.expect("a list");
        assert!(listed == [item], "the item is listed as it was parked last");
        let keys = dynamo.partition_keys(&table).await;
        assert_eq!(keys.len(), 4 + 2 + parts, "{bytes} bytes leave nothing behind: {keys:?}");
    }
    for item in &items {
        parked.remove(&log(), item.seq, &item.identity).await.expect("removing");
    }
    assert_eq!(dynamo.partition_keys(&table).await, [] as [&str; 0], "nothing is left");
}

/// An attempt that ended half-way is not listed, and a second attempt completes it.
#[tokio::test]
async fn parts_without_their_item_are_ignored() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.parked();
    let parked = DynamoParked::new(&dynamo.aws, &table);
    let body: Bytes = vec![7; STREAM_RECORD_BYTES_MAX].into();
    let item = ParkedItem { seq: Seq(4), identity: "bytes#77".to_owned(), body };
    for stored in 0..3 {
        dynamo.wire.trouble("PutItem", &table, stored, Trouble::None);
        dynamo.wire.trouble("PutItem", &table, 1, Trouble::Answer(400, "AccessDeniedException"));
        parked.park(&log(), &item).await.expect_err("refused");
        assert_eq!(dynamo.wire.count("PutItem", &table), stored + 1);
        assert_eq!(parked.list(&log(), (Seq(0), ""), 10).await.expect("a list"), []);
    }
    assert_eq!(dynamo.partition_keys(&table).await.len(), 3, "parts of three attempts are there");
    // A second attempt after a lost answer does not remove the parts that it has just stored.
    dynamo.wire.trouble("PutItem", &table, 2, Trouble::None);
    dynamo.wire.trouble("PutItem", &table, 1, Trouble::LoseAnswer);
    parked.park(&log(), &item).await.expect("parking");
    assert!(parked.list(&log(), (Seq(0), ""), 10).await.expect("a list") == [item.clone()]);

    // An item whose parts are lost waits for an operator. It is not an error, which would hide all other
    // items (F7), and not a shorter body, which could be taken for the whole.
    let keys = dynamo.partition_keys(&table).await;
    let parts = keys.iter().find(|key| **key != log().to_string()).expect("a part");
    let pk = AttributeValue::S(parts.clone());
    let query = dynamo.aws.dynamodb.query().table_name(&table);
    let query = query.key_condition_expression("pk = :pk");
    let query = query.expression_attribute_values(":pk", pk).projection_expression("pk, sk");
    let found = query.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
    for key in found.expect("parts") {
        let delete = dynamo.aws.dynamodb.delete_item().table_name(&table);
        delete.set_key(Some(key)).send().await.expect("a delete");
    }
    let whole = ParkedItem { seq: Seq(9), identity: "ann#9".to_owned(), body: item.body.clone() };
    parked.park(&log(), &whole).await.expect("parking");
    let listed = parked.list(&log(), (Seq(0), ""), 10).await.expect("a list");
    let [first, second] = &listed[..] else { panic!("{} items", listed.len()) };
    assert_eq!((first.seq, &first.identity), (item.seq, &item.identity));
    assert!(first.body.is_empty() && *second == whole);
    // It can be replaced and removed.
    parked.park(&log(), &item).await.expect("parking");
    assert!(parked.list(&log(), (Seq(0), ""), 1).await.expect("a list") == [item.clone()]);
    for ParkedItem { seq, identity, .. } in [&item, &whole] {
        parked.remove(&log(), *seq, identity).await.expect("removing");
    }
    assert_eq!(parked.list(&log(), (Seq(0), ""), 10).await.expect("a list"), []);
}

#[tokio::test]
async fn the_position_of_a_sweep_is_stored() {
    let dynamo = Dynamo::start().await;
    for table in [dynamo.tables.state(), dynamo.view()] {
        let positions = DynamoSweepPosition::new(&dynamo.aws, &table);
        assert_eq!(positions.get().await.expect("a position"), None);
        for position in [
            Some(CataloguePosition { bucket: 0, log: None }),
            Some(CataloguePosition { bucket: 63, log: Some(log()) }),
            Some(CataloguePosition { bucket: 7, log: None }),
            None,
        ] {
            positions.put(position.as_ref()).await.expect("a put");
            assert_eq!(positions.get().await.expect("a position"), position);
        }
    }
}

/// DynamoDB's expiry counts whole seconds, so a tombstone is kept up to a second longer.
#[tokio::test]
async fn tombstones_never_expire_early() {
    let dynamo = Dynamo::start().await;
    let table = DynamoViewTable::new(&dynamo.aws, dynamo.view());
    let key = "cash".parse().expect("a key");
    let tombstone = |ms| StoredRow { seq: Seq(1), body: None, expires: Some(Time(ms)) };
    let row = tombstone(4_102_444_800_001);
    table.put_row(&log(), &key, &row, None).await.expect("a put");
    let found = table.rows(&log(), &[key]).await.expect("a row");
    assert_eq!(found, [Some(tombstone(4_102_444_801_000))]);
}

/// So the view's sweep finds it within a minute, whatever the number of logs.
#[tokio::test]
async fn a_released_log_is_listed_until_its_cursor_moves() {
    let dynamo = Dynamo::start().await;
    let table = DynamoViewTable::new(&dynamo.aws, dynamo.view());
    let reason = "it cannot be applied".to_owned();
    let parked =
        ParkedView { seq: Seq(2), reason, at: Time(7), build: Some("b".to_owned()), rebuild: None };
    table.move_cursor(&log(), Seq(1)).await.expect("a move");
    table.park(&log(), Seq(1), &parked).await.expect("parking");
    assert!(table.release(&log(), &parked, None).await.expect("a release"));
    let listed = table.parked(None, 10).await.expect("a list");
    let cursor = Cursor { seq: Seq(1), ..Cursor::default() };
    assert_eq!(listed, ParkedViewPage { logs: vec![(log(), cursor)], next: None });
    table.move_cursor(&log(), Seq(2)).await.expect("a move");
    assert_eq!(table.parked(None, 10).await.expect("a list"), ParkedViewPage::default());
}

/// A release whose answer is lost is repeated. It is not taken for that of another call.
#[tokio::test]
async fn a_release_without_an_answer_is_done() {
    let dynamo = Dynamo::start().await;
    let name = dynamo.view();
    let table = DynamoViewTable::new(&dynamo.aws, &name);
    let parked = ParkedView {
        seq: Seq(2),
        reason: "no".to_owned(),
        at: Time(7),
        build: None,
        rebuild: None,
    };
    for (at, to, after) in [(1, None, 1), (1, Some(Seq(2)), 2)] {
        table.move_cursor(&log(), Seq(at)).await.expect("a move");
        table.park(&log(), Seq(at), &parked).await.expect("parking");
        dynamo.wire.trouble("UpdateItem", &name, 1, Trouble::LoseAnswer);
        assert!(table.release(&log(), &parked, to).await.expect("a release"), "to {to:?}");
        let cursor = table.cursor(&log()).await.expect("a read").expect("a cursor");
        assert_eq!((cursor.seq, cursor.parked), (Seq(after), None));
    }
}

/// Another build may have written fields that this one does not know.
#[tokio::test]
async fn a_view_that_a_later_build_has_parked_can_be_released() {
    let dynamo = Dynamo::start().await;
    let name = dynamo.view();
    let table = DynamoViewTable::new(&dynamo.aws, &name);
    let why = r#"{"seq":2, "reason":"no", "at":7, "build":"later", "since":{"seq":1}}"#;
    let key = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let put = dynamo.aws.dynamodb.put_item().table_name(&name).set_item(Some(
        [
            key("pk", log().as_str()),
            key("sk", "cursor"),
            key("parked", why),
            ("h".to_owned(), AttributeValue::N("4".to_owned())),
            ("seq".to_owned(), AttributeValue::N("1".to_owned())),
        ]
        .into(),
    ));
    put.send().await.expect("a put");
    let mut listed = table.parked(None, 10).await.expect("a list").logs;
    let (found, cursor) = listed.pop().expect("a log");
    let parked = cursor.parked.expect("it is parked");
    assert_eq!((found, parked.build.as_deref()), (log(), Some("later")));
    assert!(table.release(&log(), &parked, None).await.expect("a release"));
    let cursor = table.cursor(&log()).await.expect("a read").expect("a cursor");
    assert_eq!(cursor, Cursor { seq: Seq(1), ..Cursor::default() });
}
