//! A DynamoDB in memory, in the test's own runtime, with the tables of a stack.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use dynoxide::Database;
use dynoxide::server::serve_on;
use fanfold_aws::Aws;
use fanfold_aws::names::attribute::{BUCKET, PK, SK};
use fanfold_aws::names::{CATALOGUE_INDEX, Tables};
use tokio::net::TcpListener;

use crate::wire::Wire;

/// Long enough for a table in memory, also on a busy machine.
const ATTEMPT: Duration = Duration::from_secs(2);

pub(crate) struct Dynamo {
    pub(crate) aws: Aws,
    pub(crate) wire: Wire,
    pub(crate) tables: Tables,
}

impl Dynamo {
    /// With the tables of one stack, and of one view.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let database = Database::memory().expect("a database");
        tokio::spawn(serve_on(listener, database));
        let dynamo = Self::at(&endpoint);
        dynamo.make_tables().await;
        dynamo.wire.seen();
        dynamo
    }

    /// Without a database: for calls that are answered by the wire alone.
    pub(crate) fn nowhere() -> Self {
        Self::at("http://127.0.0.1:9")
    }

    fn at(endpoint: &str) -> Self {
        let wire = Wire::new();
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(SharedHttpClient::new(wire.clone()))
            .build();
        let aws = Aws::new(&config).with_attempt_timeout(ATTEMPT);
        Self { aws, wire, tables: Tables::new("it") }
    }

    async fn make_tables(&self) {
        use ScalarAttributeType::{N, S};
        let client = &self.aws.dynamodb;
        let tables = &self.tables;
        make(client, &tables.commands(), &[(PK, S)], Some((BUCKET, PK))).await;
        make(client, &tables.journal(), &[(PK, S), (SK, N)], None).await;
        for name in [tables.state(), tables.parked(), self.view()] {
            self.make_table(&name).await;
        }
    }

    /// A table whose keys are texts.
    pub(crate) async fn make_table(&self, name: &str) {
        use ScalarAttributeType::S;
        make(&self.aws.dynamodb, name, &[(PK, S), (SK, S)], None).await;
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

/// Makes a table with these keys; the index has a number and the table's partition key.
async fn make(
    client: &Client,
    name: &str,
    keys: &[(&str, ScalarAttributeType)],
    index: Option<(&str, &str)>,
) {
    let mut table = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for ((key, kind), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        table = table.attribute_definitions(attribute(key, kind)).key_schema(schema(key, role));
    }
    if let Some((hash, range)) = index {
        let only_keys = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
        let index = GlobalSecondaryIndex::builder()
            .index_name(CATALOGUE_INDEX)
            .key_schema(schema(hash, KeyType::Hash))
            .key_schema(schema(range, KeyType::Range))
            .projection(only_keys);
        table = table
            .attribute_definitions(attribute(hash, &ScalarAttributeType::N))
            .global_secondary_indexes(index.build().expect("an index"));
    }
    table.send().await.expect("a table");
}

fn attribute(name: &str, kind: &ScalarAttributeType) -> AttributeDefinition {
    let attribute = AttributeDefinition::builder().attribute_name(name);
    attribute.attribute_type(kind.clone()).build().expect("an attribute")
}

fn schema(name: &str, role: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(role).build().expect("a key")
}
