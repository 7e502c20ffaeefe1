//! All stages over the tables of DynamoDB. The streams and the topic between them are in memory, and cost
//! no capacity.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fanfold::host::body::notification::Message;
use fanfold::{AnyView, LogId, Seq, Services, Time};
use fanfold_aws::dynamo::{
    DynamoCommands, DynamoJournal, DynamoParked, DynamoState, DynamoViewTable,
};
use fanfold_aws::{Aws, OpenAdmission, SystemEnv};
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ingest::{Ingest, IngestError, Receipt};
use fanfold_pipeline::packing::{MessageTopics, PackingTopic};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, CommandStream, Commands, Env,
    PublishError, Slot, StreamRecord, Unavailable,
};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::relay::Relay;
use fanfold_pipeline::wiring::Wiring;

use fanfold_aws::names::Tables;

pub(crate) const NEVER: Time = Time(u64::MAX);

/// The items that wait between two stages.
pub(crate) struct Queue<T>(Mutex<Vec<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Queue<T> {
    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all items, oldest first.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.items())
    }
}

/// The commands table, with its stream.
struct Streamed {
    table: DynamoCommands,
    changes: Arc<Queue<Change>>,
}

#[async_trait]
impl Commands for Streamed {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let Append { n, body, at, token } = append.clone();
        let last = self.table.append(log, append).await?;
        let change = Change { log: log.clone(), last, n, at, token, body };
        self.changes.items().push(change);
        Ok(last)
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        self.table.slot(log).await
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        self.table.batch(log).await
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        self.table.catalogue(after, limit).await
    }
}

#[async_trait]
impl CommandStream for Queue<ReceivedRecord> {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        let arrived = SystemEnv.now();
        let received = records.iter().cloned();
        let received =
            received.map(|StreamRecord { key, data }| ReceivedRecord { key, data, arrived });
        self.items().extend(received);
        Ok(vec![Ok(()); records.len()])
    }
}

/// The topic: what was published, and in how many calls.
#[derive(Default)]
pub(crate) struct Published {
    messages: Queue<Message>,
    calls: AtomicUsize,
}

impl Published {
    /// The number of calls since the last time, and the messages that they published.
    pub(crate) fn take(&self) -> (usize, Vec<Message>) {
        (self.calls.swap(0, Ordering::Relaxed), self.messages.take())
    }
}

#[async_trait]
impl MessageTopics for Published {
    fn topics(&self) -> usize {
        1
    }

    async fn publish_messages(
        &self,
        _: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.messages.items().extend_from_slice(messages);
        Ok(vec![Ok(()); messages.len()])
    }
}

/// The stages, and the queues between them.
pub(crate) struct Pipeline {
    pub(crate) aws: Aws,
    tables: Tables,
    pub(crate) wiring: Wiring,
    pub(crate) ingest: Ingest,
    pub(crate) relay: Relay,
    pub(crate) processor: Processor,
    pub(crate) changes: Arc<Queue<Change>>,
    pub(crate) records: Arc<Queue<ReceivedRecord>>,
    pub(crate) published: Arc<Published>,
}

impl Pipeline {
    pub(crate) fn new(aws: &Aws, tables: &Tables, services: Services) -> Self {
        let (changes, published) = (Arc::default(), Arc::<Published>::default());
        let records = Arc::<Queue<ReceivedRecord>>::default();
        let table = DynamoCommands::new(aws, tables.commands());
        let env = Arc::new(SystemEnv);
        let memory = Ports::in_memory(&TransitConfig::default(), [], env.clone()).expect("ports");
        let wiring = Wiring {
            commands: Arc::new(Streamed { table, changes: Arc::clone(&changes) }),
            admission: Arc::new(OpenAdmission),
            stream: records.clone(),
            journal: Arc::new(DynamoJournal::new(aws, tables.journal())),
            state: Arc::new(DynamoState::new(aws, tables.state())),
            parked: Arc::new(DynamoParked::new(aws, tables.parked())),
            topic: Arc::new(PackingTopic::new(published.clone(), env.clone())),
            ..memory.wiring(env)
        };
        Self {
            aws: aws.clone(),
            tables: tables.clone(),
            ingest: wiring.ingest(services.clone()),
            relay: wiring.relay(),
            processor: wiring.processor(services),
            wiring,
            changes,
            records,
            published,
        }
    }

    pub(crate) fn projector(&self, view: Arc<dyn AnyView>) -> Projector {
        let table = DynamoViewTable::new(&self.aws, self.tables.view(view.name(), view.version()));
        let views = [(view.name().to_owned(), Arc::new(table) as _)].into();
        Wiring { views, ..self.wiring.clone() }.projector(&view)
    }

    /// Sends one request, of one or many commands.
    pub(crate) async fn send(&self, commands: &[String]) -> Vec<Result<Receipt, IngestError>> {
        let commands: Vec<&[u8]> = commands.iter().map(String::as_bytes).collect();
        self.ingest.ingest(&commands).await
    }

    /// Processes and publishes everything that was sent. Returns its changes.
    pub(crate) async fn process(&self) -> Vec<Change> {
        let changes = self.changes.take();
        assert_eq!(self.relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
        let records = self.records.take();
        assert_eq!(self.processor.process(&records, NEVER).await, BatchOutcome::DONE);
        changes
    }
}
