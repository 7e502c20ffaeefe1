//! An in-memory DynamoDB in the test's own runtime, with the tables of a stack.

use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;
use dynoxide::Database;
use dynoxide::server::serve_on;
use fanfold_aws::names::Tables;
use fanfold_aws::names::attribute::PK;
use fanfold_aws::{Aws, of_emulator};
use tokio::net::TcpListener;

use crate::schema::{make_tables, make_texts};
use crate::wire::Wire;

/// How long an attempt may take: long enough for a table in memory, even on a busy machine.
const ATTEMPT: Duration = Duration::from_secs(2);

pub(crate) struct Dynamo {
    pub(crate) aws: Aws,
    pub(crate) wire: Wire,
    pub(crate) tables: Tables,
}

impl Dynamo {
    /// Starts a database with the tables of one stack and one view.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let database = Database::memory().expect("a database");
        tokio::spawn(serve_on(listener, database));
        let dynamo = Self::at(&endpoint);
        make_tables(&dynamo.aws.dynamodb, &dynamo.tables).await;
        dynamo.wire.seen();
        dynamo
    }

    /// Clients without a database, for calls that only the wire answers.
    pub(crate) fn nowhere() -> Self {
        Self::at("http://127.0.0.1:9")
    }

    fn at(endpoint: &str) -> Self {
        let wire = Wire::new();
        let http = SharedHttpClient::new(wire.clone());
        let aws = Aws::new(&of_emulator(endpoint).into_builder().http_client(http).build())
            .with_attempt_timeout(ATTEMPT);
        Self { aws, wire, tables: Tables::new("it") }
    }

    /// Creates a table whose keys are texts.
    pub(crate) async fn make_table(&self, name: &str) {
        make_texts(&self.aws.dynamodb, name).await;
    }

    /// The partition keys of all items of a table.
    pub(crate) async fn partition_keys(&self, table: &str) -> Vec<String> {
        let scan = self.aws.dynamodb.scan().table_name(table).projection_expression(PK);
        let items = scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let items = items.expect("a scan");
        items.iter().map(|item| item[PK].as_s().expect("a text").clone()).collect()
    }

    pub(crate) fn view(&self) -> String {
        self.tables.view("balances", 1)
    }
}
