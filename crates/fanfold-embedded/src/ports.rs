//! All ports of an engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fanfold_pipeline::calls::ViewCalls;
use fanfold_pipeline::operate::{OperatePorts, OperatedViews};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::wiring::Wiring;

use crate::commands::StoredCommands;
use crate::config::TransitConfig;
use crate::disk::MemoryDisk;
use crate::shards::{Layout, Shards};
use crate::store::folder::Folder;
use crate::store::{Driver, OpenError, Store, StoreError, Table};
use crate::tables::{
    ACTIONS_MAX, StoredDeadLetters, StoredJournal, StoredParked, StoredState, StoredTimeline,
    StoredView, StoredViewRegistry,
};
use crate::transit::{MemoryAdmission, MemoryStream, MemoryTopic};
use crate::waits::LocalWaits;

/// The meta table's key of the layout of the command stream's shards.
const LAYOUT_KEY: &[u8] = b"shards";

/// The ports of an engine, over one store.
#[derive(Clone)]
pub struct Ports {
    /// Slots, the catalogue, and the change stream.
    pub commands: Arc<StoredCommands>,
    /// The command stream.
    pub stream: Arc<MemoryStream>,
    /// The commits of all logs.
    pub journal: Arc<StoredJournal>,
    /// Heads, documents, windows.
    pub state: Arc<StoredState>,
    /// Parked commands, and leases.
    pub parked: Arc<StoredParked>,
    /// The notifications.
    pub topic: Arc<MemoryTopic>,
    /// The notifications that could not be delivered.
    pub dead_letters: Arc<StoredDeadLetters>,
    /// The views' tables, by the views' names.
    pub views: BTreeMap<String, Arc<StoredView>>,
    /// What the views have announced.
    pub view_registry: Arc<StoredViewRegistry>,
    /// What operators did.
    pub timeline: Arc<StoredTimeline>,
    /// Refuses commands beyond the limits.
    pub admission: Arc<MemoryAdmission>,
    /// Waiting for logs and views.
    pub waits: Arc<LocalWaits>,
}

impl Ports {
    /// The ports over a store. `views` has the name of each view's table, by the view's name.
    pub(crate) fn new(
        config: &TransitConfig,
        views: &BTreeMap<String, String>,
        store: &Arc<Store>,
        env: Arc<dyn Env>,
    ) -> Result<Self, StoreError> {
        let commands =
            StoredCommands::open(store.clone(), config.shards, config.backlog, env.clone())?;
        let commands = Arc::new(commands);
        let records = command_shards(store, config.shards)?;
        let stream = Arc::new(MemoryStream::over(records, config.backlog, env.clone()));
        let journal = Arc::new(StoredJournal::new(store.clone()));
        let mut waits = LocalWaits::new(env, journal.clone(), journal.waiters().clone());
        let mut tables = BTreeMap::new();
        for (view, name) in views {
            let Some(table) = store.view(name) else { continue };
            let table = Arc::new(StoredView::new(store.clone(), table));
            waits = waits.with_view(view, table.waiters().clone());
            tables.insert(view.clone(), table);
        }
        let on_the_way = [commands.changes().backlog().clone(), stream.records().backlog().clone()];
        let topic = Arc::new(MemoryTopic::new(config.notifications_bytes_max));
        commands.pace_by(stream.records().backlog().clone(), topic.clone());
        let accepting = commands.clone();
        let admission = MemoryAdmission::new(on_the_way, config.backlog);
        Ok(Self {
            admission: Arc::new(admission.refuse_while(move || accepting.obstacle())),
            topic,
            dead_letters: Arc::new(StoredDeadLetters::new(store.clone(), config.dead_letters)),
            state: Arc::new(StoredState::new(store.clone())),
            parked: Arc::new(StoredParked::new(store.clone())),
            waits: Arc::new(waits),
            views: tables,
            view_registry: Arc::new(StoredViewRegistry::new(store.clone())),
            timeline: Arc::new(StoredTimeline::new(store.clone(), ACTIONS_MAX)),
            commands,
            stream,
            journal,
        })
    }

    /// The wiring of stages over these ports.
    pub fn wiring(&self, env: Arc<dyn Env>) -> Wiring {
        let Self { commands, stream, journal, state, parked, topic, .. } = self.clone();
        let Self { dead_letters, admission, waits, .. } = self.clone();
        let view = |(name, table): (&String, &Arc<StoredView>)| (name.clone(), table.clone() as _);
        let views = self.views.iter().map(view).collect();
        Wiring {
            commands,
            admission,
            stream,
            journal,
            state,
            parked,
            topic,
            dead_letters,
            views,
            waits,
            env,
            telemetry: None,
        }
    }

    /// The ports of operators, and of the doctor.
    pub fn operated(&self, calls: ViewCalls, env: Arc<dyn Env>) -> OperatePorts {
        let Self { commands, journal, state, parked, stream, .. } = self.clone();
        let view = |(name, table): (&String, &Arc<StoredView>)| (name.clone(), table.clone() as _);
        let views = OperatedViews::Own(self.views.iter().map(view).collect());
        OperatePorts { commands, journal, state, parked, stream, views, calls, env }
    }

    /// Ports in memory without an engine, with a table for each view. Each call takes its whole
    /// effect at once, deterministically, and needs no runtime.
    pub fn in_memory<'a>(
        config: &TransitConfig,
        views: impl IntoIterator<Item = &'a str>,
        env: Arc<dyn Env>,
    ) -> Result<Self, OpenError> {
        let views = views.into_iter().map(|view| (view.to_owned(), view.to_owned()));
        let views: BTreeMap<String, String> = views.collect();
        let tables: Vec<String> = views.values().cloned().collect();
        let folder = Folder::take(Arc::new(MemoryDisk::default()), Path::new("/memory"))?;
        let store = Arc::new(Store::open(folder, &tables, env.clone(), Driver::Callers)?);
        Self::new(config, &views, &store, env).map_err(|error| store.folder().explain(error))
    }
}

/// The shards of the command stream: those of the stored layout, or `wanted` new ones.
fn command_shards(store: &Arc<Store>, wanted: usize) -> Result<Shards<ReceivedRecord>, StoreError> {
    let layout = match store.get(Table::META, LAYOUT_KEY)? {
        Some(stored) => serde_json::from_slice(&stored).map_err(|error| {
            let message = format!("the layout of the shards cannot be read: {error}");
            StoreError::damaged(message)
        })?,
        None => Layout::equal(wanted),
    };
    let store = store.clone();
    Ok(Shards::from_layout(layout).stored_by(move |layout| {
        let layout = serde_json::to_vec(layout)?;
        Ok(store.put_now(Table::META, LAYOUT_KEY, Some(layout.into()))?)
    }))
}
