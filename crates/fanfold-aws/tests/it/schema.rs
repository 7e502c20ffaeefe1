//! The tables of a stack with one view, as the template defines them, but without streams.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use fanfold_aws::names::attribute::{BUCKET, PK, SK};
use fanfold_aws::names::{CATALOGUE_INDEX, Tables};

pub(crate) async fn make_tables(client: &Client, tables: &Tables) {
    use ScalarAttributeType::{N, S};
    make(client, &tables.commands(), &[(PK, S)], Some((BUCKET, PK))).await;
    make(client, &tables.journal(), &[(PK, S), (SK, N)], None).await;
    make(client, &tables.views(), &[(PK, S)], None).await;
    for name in [tables.state(), tables.parked(), tables.view("balances", 1)] {
        make_table(client, &name).await;
    }
}

/// Creates a table whose keys are texts.
pub(crate) async fn make_table(client: &Client, name: &str) {
    use ScalarAttributeType::S;
    make(client, name, &[(PK, S), (SK, S)], None).await;
}

/// Creates a table with these keys. Its index has a number and the table's partition key.
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
