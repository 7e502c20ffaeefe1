//! The tables of a stack with one view, as the template defines them, but without streams.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use fanfold_aws::names::attribute::{BUCKET, PK, SK};
use fanfold_aws::names::{CATALOGUE_INDEX, PARKED_INDEX, Tables};

pub(crate) async fn make_tables(client: &Client, tables: &Tables) {
    use ScalarAttributeType::{N, S};
    make(client, &tables.commands(), &[(PK, S)], Some(CATALOGUE_INDEX)).await;
    make(client, &tables.journal(), &[(PK, S), (SK, N)], None).await;
    make(client, &tables.views(), &[(PK, S)], None).await;
    for name in [tables.state(), tables.parked(), tables.timeline()] {
        make_texts(client, &name).await;
    }
    make(client, &tables.view("balances", 1), &[(PK, S), (SK, S)], Some(PARKED_INDEX)).await;
}

/// Creates a table whose keys are texts.
pub(crate) async fn make_texts(client: &Client, name: &str) {
    use ScalarAttributeType::S;
    make(client, name, &[(PK, S), (SK, S)], None).await;
}

/// Creates a table with these keys, and with an index of this name, whose keys are the bucket and the log.
async fn make(
    client: &Client,
    name: &str,
    keys: &[(&str, ScalarAttributeType)],
    index: Option<&str>,
) {
    let mut table = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for ((key, kind), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        table = table.attribute_definitions(attribute(key, kind)).key_schema(schema(key, role));
    }
    if let Some(index) = index {
        let (hash, range) = (BUCKET, PK);
        let only_keys = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
        let index = GlobalSecondaryIndex::builder()
            .index_name(index)
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
