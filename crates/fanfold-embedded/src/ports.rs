//! All ports of an engine, whichever of its two providers they are of.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold_pipeline::ports::{Env, Journal, ParkedTable, State, ViewTable};
use fanfold_pipeline::process::ReceivedRecord;

use crate::durable::{
    DurableCommands, DurableDeadLetters, DurableJournal, DurableParked, DurableState,
    DurableViewTable,
};
use crate::memory::{Changing, Memory, MemoryAdmission, MemoryConfig, MemoryStream, MemoryTopic};
use crate::shards::{Layout, Shards};
use crate::store::{Space, Store, StoreError};
use crate::subscription::Undelivered;
use crate::waits::LocalWaits;

/// The meta table's key of the layout of the command stream's shards.
const LAYOUT_KEY: &[u8] = b"shards";

/// The ports. What is on its way is in memory in both providers.
#[derive(Clone)]
pub struct Ports {
    /// Slots, the catalogue, and the change stream.
    pub commands: Arc<dyn Changing>,
    /// The command stream.
    pub stream: Arc<MemoryStream>,
    /// The event logs.
    pub journal: Arc<dyn Journal>,
    /// Heads, documents, windows.
    pub state: Arc<dyn State>,
    /// What waits.
    pub parked: Arc<dyn ParkedTable>,
    /// The notifications.
    pub topic: Arc<MemoryTopic>,
    /// Those that could not be delivered.
    pub dead_letters: Arc<dyn Undelivered>,
    /// The views' tables, by the views' names.
    pub views: BTreeMap<String, Arc<dyn ViewTable>>,
    /// Whether commands are let in.
    pub admission: Arc<MemoryAdmission>,
    /// Waiting for logs and views.
    pub waits: Arc<LocalWaits>,
}

impl From<Memory> for Ports {
    fn from(memory: Memory) -> Self {
        let views = memory.views.into_iter();
        Self {
            commands: memory.commands,
            stream: memory.stream,
            journal: memory.journal,
            state: memory.state,
            parked: memory.parked,
            topic: memory.topic,
            dead_letters: memory.dead_letters,
            views: views.map(|(name, table)| (name, table as Arc<dyn ViewTable>)).collect(),
            admission: memory.admission,
            waits: memory.waits,
        }
    }
}

impl Ports {
    /// On a store, which has a table for each view: by the view's name, that of its table.
    pub fn durable(
        config: &MemoryConfig,
        views: &BTreeMap<String, String>,
        store: &Arc<Store>,
        env: Arc<dyn Env>,
    ) -> Result<(Self, Arc<DurableCommands>), StoreError> {
        let commands = DurableCommands::open(store.clone(), config.shards, config.backlog)?;
        let commands = Arc::new(commands);
        let records = command_shards(store, config.shards)?;
        let stream = Arc::new(MemoryStream::over(records, config.backlog, env.clone()));
        let journal = Arc::new(DurableJournal::new(store.clone()));
        let mut waits = LocalWaits::new(env, journal.clone(), journal.waiters().clone());
        let mut tables: BTreeMap<String, Arc<dyn ViewTable>> = BTreeMap::new();
        for (view, name) in views {
            let Some(space) = store.view(name) else { continue };
            let table = Arc::new(DurableViewTable::new(store.clone(), space));
            waits = waits.with_view(view, table.clone(), table.waiters().clone());
            tables.insert(view.clone(), table);
        }
        let on_the_way = [commands.changes().backlog().clone(), stream.records().backlog().clone()];
        let topic = Arc::new(MemoryTopic::new(config.notifications_bytes_max));
        commands.pace_by(stream.records().backlog().clone(), topic.clone());
        let accepting = commands.clone();
        let ports = Self {
            admission: Arc::new(
                MemoryAdmission::new(on_the_way, config.backlog)
                    .unless(move || accepting.obstacle()),
            ),
            topic,
            dead_letters: Arc::new(DurableDeadLetters::new(store.clone(), config.dead_letters)),
            state: Arc::new(DurableState::new(store.clone())),
            parked: Arc::new(DurableParked::new(store.clone())),
            waits: Arc::new(waits),
            views: tables,
            commands: commands.clone(),
            stream,
            journal,
        };
        Ok((ports, commands))
    }
}

/// The shards of the command stream as they were, or as many as are wanted if there were none.
fn command_shards(store: &Arc<Store>, wanted: usize) -> Result<Shards<ReceivedRecord>, StoreError> {
    let layout = match store.get(Space::META, LAYOUT_KEY)? {
        Some(stored) => serde_json::from_slice(&stored).map_err(|error| {
            let message = format!("the layout of the shards cannot be read: {error}");
            StoreError::damaged(message)
        })?,
        None => Layout::equal(wanted),
    };
    let store = store.clone();
    Ok(Shards::from_layout(layout).stored_by(move |layout| {
        let layout = serde_json::to_vec(layout)?;
        Ok(store.put_now(Space::META, LAYOUT_KEY, Some(layout.into()))?)
    }))
}
