//! The views that a host serves: its own, and those that others have announced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanfold::host::body::announced::{Announced, Announcement};
use fanfold::{AnyView, Services, Time};

use crate::ports::{Env, Unavailable, ViewRegistry, ViewTable};

/// How long a list of announced views is served, in milliseconds. Source: our choice; a new view
/// appears after at most this time, and each process makes at most one call in it.
const LIST_MS: u64 = 5_000;
/// The most announced views. Source: our choice; some 300 bytes each, and one page of DynamoDB's.
const ANNOUNCED_MAX: usize = 1_000;

/// A view with the table that holds it.
#[derive(Clone)]
pub struct ServedView {
    /// The view's name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The services whose logs it reads.
    pub services: Vec<String>,
    /// The event types that it understands.
    pub events: Vec<String>,
    /// When the version was announced; `None` if the host serves it by itself.
    pub since: Option<Time>,
    /// Its table.
    pub table: Arc<dyn ViewTable>,
    /// The name of that table, as it was announced; `None` if the host serves the view by itself.
    pub table_name: Option<String>,
}

/// Opens the table of an announced view, by the view's name; `None` if the table that it names is
/// not this view's.
pub type OpenTable = Box<dyn Fn(&str, &Announcement) -> Option<Arc<dyn ViewTable>> + Send + Sync>;

type ByName = BTreeMap<String, Arc<ServedView>>;

/// The views that a host serves.
pub struct ServedViews {
    own: ByName,
    announced: Option<AnnouncedViews>,
}

/// The views of a registry. The first request after [`LIST_MS`] reads the registry again. Requests
/// beside it, and those after a failure, are answered by the list before. Without one, only the
/// host's own views are known: whether there is another one is then unknown.
struct AnnouncedViews {
    registry: Arc<dyn ViewRegistry>,
    open: OpenTable,
    env: Arc<dyn Env>,
    listed: Mutex<Listed>,
}

struct Listed {
    views: Arc<ByName>,
    /// Whether the registry has answered once.
    is_whole: bool,
    /// When the list is read again; `None` while a request reads it.
    due: Option<Time>,
}

impl ServedView {
    /// The view, in this table.
    pub fn new(view: &dyn AnyView, table: Arc<dyn ViewTable>) -> Self {
        let announcement = Announcement::of(view, "", Time::default());
        let announced = Self::announced(view.name(), &announcement, table);
        Self { since: None, table_name: None, ..announced }
    }

    /// The view as it is announced, in this table.
    pub fn announced(name: &str, announcement: &Announcement, table: Arc<dyn ViewTable>) -> Self {
        let Announcement { version, services, events, since, table: named } = announcement.clone();
        let (name, since, table_name) = (name.to_owned(), Some(since), Some(named));
        Self { name, version, services, events, since, table, table_name }
    }

    /// Whether the view understands fewer event types than one of its services has. Its cursor may
    /// then rightly stay behind the log's tail, so a caller cannot wait for it.
    pub fn is_filtered(&self, services: &Services) -> bool {
        let own = |kind: &str| self.events.iter().any(|event| event == kind);
        services.have_more_than(self.services.iter().map(String::as_str), own)
    }
}

impl ServedViews {
    /// Only these.
    pub fn new(views: impl IntoIterator<Item = ServedView>) -> Self {
        let own = views.into_iter().map(|view| (view.name.clone(), Arc::new(view)));
        Self { own: own.collect(), announced: None }
    }

    /// Also those of the registry. One that is announced is served as it is announced, also if it is
    /// one of the host's own.
    #[must_use]
    pub fn with_announced(
        self,
        registry: Arc<dyn ViewRegistry>,
        open: OpenTable,
        env: Arc<dyn Env>,
    ) -> Self {
        let views = Arc::new(self.own.clone());
        let listed = Listed { views, is_whole: false, due: Some(Time::default()) };
        let listed = Mutex::new(listed);
        Self { announced: Some(AnnouncedViews { registry, open, env, listed }), ..self }
    }

    /// The view of this name. An error means that it is unknown whether there is one.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Arc<ServedView>>, Unavailable> {
        let Some(announced) = &self.announced else { return Ok(self.own.get(name).cloned()) };
        let (views, is_whole) = announced.current(&self.own).await;
        match views.get(name) {
            None if !is_whole => Err(unknown()),
            found => Ok(found.cloned()),
        }
    }

    /// All views, by name.
    pub(super) async fn all(&self) -> Result<Vec<Arc<ServedView>>, Unavailable> {
        let Some(announced) = &self.announced else {
            return Ok(self.own.values().cloned().collect());
        };
        let (views, is_whole) = announced.current(&self.own).await;
        if is_whole { Ok(views.values().cloned().collect()) } else { Err(unknown()) }
    }
}

impl AnnouncedViews {
    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The views that are known, and whether these are all.
    async fn current(&self, own: &ByName) -> (Arc<ByName>, bool) {
        let before = {
            let mut listed = self.listed();
            let is_read = listed.due.is_none() && listed.is_whole;
            if is_read || listed.due.is_some_and(|due| self.env.now() < due) {
                return (listed.views.clone(), listed.is_whole);
            }
            listed.due = None;
            listed.views.clone()
        };
        // Also if this request ends here.
        let _again = OnDrop(|| {
            self.listed().due.get_or_insert(self.env.now().plus_ms(LIST_MS));
        });
        match self.registry.list(ANNOUNCED_MAX).await {
            Ok(list) => {
                let views = Arc::new(self.served(&list, own, &before));
                let mut listed = self.listed();
                (listed.views, listed.is_whole) = (views.clone(), true);
                (views, true)
            }
            Err(error) => {
                tracing::warn!(%error, "the announced views cannot be read: those known before are served");
                (before, self.listed().is_whole)
            }
        }
    }

    fn served(&self, list: &[(String, bytes::Bytes)], own: &ByName, before: &ByName) -> ByName {
        if list.len() == ANNOUNCED_MAX {
            tracing::warn!("more than {ANNOUNCED_MAX} views are announced: others are not served");
        }
        let mut views = own.clone();
        for (name, body) in list {
            match self.view(name, body, before.get(name)) {
                Ok(view) => drop(views.insert(name.clone(), view)),
                Err(why) => tracing::warn!(view = name, why, "an announced view is not served"),
            }
        }
        views
    }

    fn view(
        &self,
        name: &str,
        body: &[u8],
        before: Option<&Arc<ServedView>>,
    ) -> Result<Arc<ServedView>, String> {
        let announced = Announced::decode(body).map_err(|error| error.to_string())?;
        let last = announced.last().ok_or("it has no version")?;
        let is_same = |before: &&Arc<ServedView>| {
            before.version == last.version
                && before.since == Some(last.since)
                && before.table_name.as_ref() == Some(&last.table)
        };
        if let Some(before) = before.filter(is_same) {
            return Ok(before.clone());
        }
        let table = (self.open)(name, last);
        let table = table.ok_or_else(|| format!("the table `{}` is not its", last.table))?;
        Ok(Arc::new(ServedView::announced(name, last, table)))
    }
}

fn unknown() -> Unavailable {
    let message = "the announced views are not known yet".to_owned();
    Unavailable::Failed { hop: "registry of views", message }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
