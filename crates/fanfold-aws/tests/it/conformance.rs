//! The conformance suite of the ports on DynamoDB.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use fanfold::{LogId, Time};
use fanfold_aws::dynamo::{
    DynamoCommands, DynamoJournal, DynamoParked, DynamoState, DynamoTimeline, DynamoViewRegistry,
    DynamoViewTable,
};
use fanfold_aws::names::attribute::{CLOSED, PK};
use fanfold_aws::{PollingWaits, SystemEnv};
use fanfold_pipeline::conformance;
use fanfold_pipeline::ports::{Append, Commands, Env, Journal, Token, ViewTable};

use crate::dynamo::Dynamo;

#[tokio::test]
async fn the_commands_table_conforms() {
    let dynamo = Dynamo::start().await;
    let commands = DynamoCommands::new(&dynamo.aws, dynamo.tables.commands());
    conformance::commands(&commands, "c").await;
    conformance::catalogue(&commands, "c").await;
    conformance::operator_commands(&commands, "o").await;
}

#[tokio::test]
async fn a_closed_slot_conforms() {
    let dynamo = Dynamo::start().await;
    let commands = DynamoCommands::new(&dynamo.aws, dynamo.tables.commands());
    let log: LogId = "conformance/org:closed".parse().expect("a log");
    let (body, at) = (Bytes::from_static(b"[]"), Time(1));
    let append = Append { n: 1, body, at, token: Token(1) };
    commands.append(&log, append).await.expect("an append");
    let closing = dynamo.aws.dynamodb.update_item().table_name(dynamo.tables.commands());
    closing
        .key(PK, AttributeValue::S(log.to_string()))
        .update_expression("SET closed = :yes")
        .expression_attribute_values(":yes", AttributeValue::Bool(true))
        .send()
        .await
        .unwrap_or_else(|error| panic!("setting `{CLOSED}`: {error:?}"));
    conformance::closed_slot(&commands, &log).await;
    conformance::raised_closed_slot(&commands, &log).await;
}

#[tokio::test]
async fn the_journal_conforms() {
    let dynamo = Dynamo::start().await;
    let journal = DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
    conformance::journal(&journal, "j").await;
    conformance::operator_journal(&journal, "o").await;
}

#[tokio::test]
async fn the_state_table_conforms() {
    let dynamo = Dynamo::start().await;
    conformance::state(&DynamoState::new(&dynamo.aws, dynamo.tables.state()), "s").await;
}

#[tokio::test]
async fn the_parked_table_conforms() {
    let dynamo = Dynamo::start().await;
    conformance::parked(&DynamoParked::new(&dynamo.aws, dynamo.tables.parked()), "p").await;
}

#[tokio::test]
async fn the_tables_of_operators_conform() {
    let dynamo = Dynamo::start().await;
    let parked = DynamoParked::new(&dynamo.aws, dynamo.tables.parked());
    conformance::operator_parked(&parked, "o").await;
    conformance::operator_view(&DynamoViewTable::new(&dynamo.aws, dynamo.view()), "o").await;
}

#[tokio::test]
async fn the_view_table_conforms() {
    let dynamo = Dynamo::start().await;
    conformance::view_table(&DynamoViewTable::new(&dynamo.aws, dynamo.view()), "v").await;
}

#[tokio::test]
async fn the_view_registry_conforms() {
    let dynamo = Dynamo::start().await;
    conformance::view_registry(&DynamoViewRegistry::new(&dynamo.aws, dynamo.tables.views())).await;
}

#[tokio::test]
async fn the_timeline_conforms() {
    let dynamo = Dynamo::start().await;
    let timeline = DynamoTimeline::new(&dynamo.aws, dynamo.tables.timeline());
    conformance::operator_timeline(&timeline, SystemEnv.now()).await;
}

#[tokio::test]
async fn the_waits_conform() {
    let dynamo = Dynamo::start().await;
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let journal: Arc<dyn Journal> =
        Arc::new(DynamoJournal::new(&dynamo.aws, dynamo.tables.journal()));
    let table: Arc<dyn ViewTable> = Arc::new(DynamoViewTable::new(&dynamo.aws, dynamo.view()));
    let ports = conformance::WaitsPorts {
        waits: &PollingWaits::new(journal.clone(), env.clone()),
        journal: &*journal,
        view: "balances",
        table: &*table,
        env: &*env,
    };
    conformance::waits(&ports, "w").await;
}
