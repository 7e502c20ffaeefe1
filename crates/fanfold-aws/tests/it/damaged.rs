//! F7: what is in a table and was not put there by Fanfold, or only a part of it, stops no log but
//! its own.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use fanfold::{LogId, Time};
use fanfold_aws::dynamo::{BUCKETS, DynamoCommands, Positions, bucket};
use fanfold_aws::names::attribute::{BUCKET, LOG, PK, SK};
use fanfold_pipeline::ports::{Append, CataloguePosition, Commands, Token};

use crate::dynamo::Dynamo;

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Puts an item as nobody should.
async fn put<const N: usize>(dynamo: &Dynamo, table: &str, item: [(&str, AttributeValue); N]) {
    let item: HashMap<String, AttributeValue> =
        item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let put = dynamo.aws.dynamodb.put_item().table_name(table).set_item(Some(item));
    put.send().await.expect("a put");
}

#[tokio::test]
async fn rows_of_nobody_do_not_end_the_walk_over_the_catalogue() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.commands();
    let commands = DynamoCommands::new(&dynamo.aws, &table);
    let logs: BTreeSet<LogId> =
        (0..5).map(|n| format!("ledger/org:o{n}").parse().expect("a log")).collect();
    for log in &logs {
        let append = Append { n: 1, body: Bytes::from_static(b"[]"), at: Time(1), token: Token(1) };
        commands.append(log, append).await.expect("an append");
    }
    // Before, between and behind the logs of a bucket, and alone in one.
    let crowded = bucket(logs.first().expect("a log"));
    let alone = (0..BUCKETS).find(|n| logs.iter().all(|log| bucket(log) != *n)).expect("a bucket");
    for (bucket, name) in [(crowded, "a"), (crowded, "ledger"), (crowded, "z"), (crowded, "zz")] {
        put(&dynamo, &table, [(PK, text(name)), (BUCKET, number(bucket))]).await;
    }
    put(&dynamo, &table, [(PK, text("of nobody")), (BUCKET, number(alone))]).await;

    for limit in [1, 2, 3, 100] {
        let (mut listed, mut at, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = commands.catalogue(at, limit).await.expect("a page");
            assert!(page.logs.len() <= limit);
            listed.extend(page.logs);
            pages += 1;
            assert!(pages <= 2 * logs.len() + 1, "it comes forward");
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
async fn a_sweep_whose_position_cannot_be_read_begins_anew() {
    let dynamo = Dynamo::start().await;
    let table = dynamo.tables.state();
    let positions = Positions::new(&dynamo.aws, &table);
    let position = CataloguePosition { bucket: 7, log: None };
    let key = || [(PK, text("sweep")), (SK, text("position"))];
    for (name, value) in
        [(BUCKET, number(300)), (BUCKET, text("x")), (LOG, number(1)), (LOG, text("of nobody"))]
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
