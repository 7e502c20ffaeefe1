//! Views that hosts announce, and readers find.
//!
//! `docs/design.md#the-registry-of-views`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::announced::{Announced, Announcement, AnnouncementError};
use fanfold::{Seq, Time};
use fanfold_embedded::testing::StoredViewRegistry;
use fanfold_pipeline::announce::{AnnounceError, announce};
use fanfold_pipeline::ports::{Env, RowRange, Unavailable, ViewRegistry, ViewTable};
use fanfold_pipeline::read::{Awaited, LogError, Reads, ServedView, ServedViews, ViewError};
use fanfold_pipeline::testing::yield_once;
use futures::future::join_all;

use crate::check::play;
use crate::world::{World, acme, run, services, views};

/// A registry that counts its lists and can fail, or be slow.
struct Watched {
    registry: Arc<StoredViewRegistry>,
    lists: AtomicUsize,
    fails: AtomicBool,
    /// A body that another host announces before the next `replace`.
    rival: Mutex<Option<Bytes>>,
}

impl Watched {
    fn over(world: &World) -> Arc<Self> {
        let registry = world.memory.view_registry.clone();
        let (lists, fails, rival) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { registry, lists, fails, rival })
    }
}

#[async_trait]
impl ViewRegistry for Watched {
    async fn get(&self, view: &str) -> Result<Option<Bytes>, Unavailable> {
        self.registry.get(view).await
    }

    async fn replace(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, Unavailable> {
        let rival = self.rival.lock().unwrap().take();
        if let Some(rival) = rival {
            let stored = self.registry.get(view).await?;
            assert!(self.registry.replace(view, stored.as_ref(), &rival).await?);
        }
        self.registry.replace(view, before, body).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<(String, Bytes)>, Unavailable> {
        self.lists.fetch_add(1, Relaxed);
        yield_once().await;
        match self.fails.load(Relaxed) {
            true => Err(Unavailable::Throttled { hop: "registry of views" }),
            false => self.registry.list(limit).await,
        }
    }
}

fn announcement(version: u32, events: &[&str], since: u64) -> Announcement {
    Announcement {
        version,
        services: vec!["tally".to_owned()],
        events: events.iter().map(|kind| (*kind).to_owned()).collect(),
        table: format!("view-v{version}"),
        since: Time(since),
    }
}

/// All event types of the tests' service.
fn all_events() -> Vec<&'static str> {
    let services = services();
    let service = services.get("tally").expect("a service");
    service.events().iter().map(|(kind, _)| *kind).collect()
}

/// A reader whose own views are those of the tests, and which finds the announced ones. All of those
/// are in the table of `sums`.
fn reader(world: &World, registry: &Arc<Watched>) -> Reads {
    let table = |view: &str| -> Arc<dyn ViewTable> { world.table(view).clone() };
    let own: Vec<ServedView> =
        views().iter().map(|view| ServedView::new(&**view, table(view.name()))).collect();
    let of_others = table("sums");
    let open =
        move |_: &str, of: &Announcement| of.table.starts_with("view-").then(|| of_others.clone());
    let served = ServedViews::new(own);
    let served = served.with_announced(registry.clone(), Box::new(open), world.env.clone());
    world.wiring().reads_of(served, services())
}

async fn names(reads: &Reads) -> Vec<(String, u32, Option<u64>)> {
    let served = reads.views().await.expect("a list");
    let of =
        |view: &Arc<ServedView>| (view.name.clone(), view.version, view.since.map(|since| since.0));
    served.iter().map(of).collect()
}

async fn rows(reads: &Reads, view: &str) -> Result<Awaited<Seq>, ViewError> {
    let everything = RowRange { prefix: String::new(), after: None, descending: false, limit: 100 };
    match reads.rows(view, &acme(), &everything, Some(Seq(2)), 1_000).await? {
        Awaited::Ready(page) => Ok(Awaited::Ready(page.seq)),
        Awaited::Pending { seq, parked } => Ok(Awaited::Pending { seq, parked }),
    }
}

/// The log has two entries, and the view `sums` has reached them.
async fn two_entries_are_in_sums(world: &World) {
    world.accept(&acme(), 2).await;
    world.commit(&acme(), &run(1..=2)).await;
    world.table("sums").move_cursor(&acme(), Seq(2)).await.expect("memory");
}

#[test]
fn an_announced_view_appears_within_seconds() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let reads = reader(&world, &registry);
        two_entries_are_in_sums(&world).await;
        let own = ["balances", "resets", "sums"].map(|name| (name.to_owned(), 1, None));
        assert_eq!(names(&reads).await, own, "its own, before they are announced");
        assert!(matches!(rows(&reads, "guests").await, Err(ViewError::UnknownView(_))));

        let all = all_events();
        for (view, announcement) in [
            ("guests", announcement(3, &all, 7)),
            ("sums", announcement(1, &all, 8)),
            ("few", announcement(1, &all[..1], 9)),
        ] {
            announce(&*registry, view, &announcement).await.expect("memory");
        }
        assert!(matches!(rows(&reads, "guests").await, Err(ViewError::UnknownView(_))));
        assert_eq!(registry.lists.load(Relaxed), 1, "the list is served for five seconds");
        world.env.pass(5_000);
        assert_eq!(rows(&reads, "guests").await.expect("it is served"), Awaited::Ready(Seq(2)));
        let filtered = rows(&reads, "few").await.expect_err("it is filtered");
        assert!(matches!(filtered, ViewError::Filtered(view) if view == "few"));
        let mut all = own.to_vec();
        all[2].2 = Some(8);
        all.insert(1, ("guests".to_owned(), 3, Some(7)));
        all.insert(1, ("few".to_owned(), 1, Some(9)));
        assert_eq!(names(&reads).await, all, "its own as they are announced");
        assert_eq!(registry.lists.load(Relaxed), 2);
    });
}

/// The version that was announced last is served, also if it is an older one than the reader's own.
#[test]
fn the_version_announced_last_is_served() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let reads = reader(&world, &registry);
        for (version, since) in [(2, 10), (1, 20), (7, 30)] {
            let announcement = announcement(version, &all_events(), since);
            announce(&*registry, "sums", &announcement).await.expect("memory");
            world.env.pass(5_000);
            let sums = names(&reads).await.pop();
            assert_eq!(sums, Some(("sums".to_owned(), version, Some(since))));
        }
    });
}

#[test]
fn a_registry_that_fails_stops_no_reader_of_a_known_view() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let reads = reader(&world, &registry);
        two_entries_are_in_sums(&world).await;
        let everything = all_events();
        announce(&*registry, "guests", &announcement(1, &everything, 1)).await.expect("memory");
        registry.fails.store(true, Relaxed);
        for _ in 0..2 {
            assert_eq!(rows(&reads, "sums").await.expect("its own"), Awaited::Ready(Seq(2)));
            // Not `UnknownView`, which a client would take for the last word.
            for view in ["guests", "nothing"] {
                let error = rows(&reads, view).await.expect_err("it is not known yet");
                assert!(matches!(error, ViewError::Log(LogError::Unavailable(_))), "{error}");
            }
            assert!(reads.views().await.is_err(), "the list would lack some");
        }
        assert_eq!(registry.lists.load(Relaxed), 1, "it is not asked again at once");
        registry.fails.store(false, Relaxed);
        world.env.pass(5_000);
        assert_eq!(rows(&reads, "guests").await.expect("it is known"), Awaited::Ready(Seq(2)));
        registry.fails.store(true, Relaxed);
        world.env.pass(5_000);
        assert_eq!(rows(&reads, "guests").await.expect("it was known"), Awaited::Ready(Seq(2)));
        assert!(matches!(rows(&reads, "nothing").await, Err(ViewError::UnknownView(_))));
    });
}

#[test]
fn readers_at_the_same_time_make_one_call() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let reads = reader(&world, &registry);
        announce(&*registry, "guests", &announcement(1, &["a"], 1)).await.expect("memory");
        // The first readers do not know what they would miss.
        let found = join_all((0..20).map(|_| names(&reads))).await;
        assert!(found.iter().all(|views| views.len() == 4), "{found:?}");
        let first = registry.lists.load(Relaxed);
        announce(&*registry, "more", &announcement(1, &["a"], 1)).await.expect("memory");
        world.env.pass(5_000);
        let found = join_all((0..20).map(|_| names(&reads))).await;
        assert_eq!(registry.lists.load(Relaxed), first + 1);
        let lens: Vec<usize> = found.iter().map(Vec::len).collect();
        assert_eq!(lens[0], 5, "the first waits for the list");
        assert!(lens[1..].iter().all(|len| *len == 4), "the others do not: {lens:?}");

        // A reader that is dropped while it asks leaves the list to the next one.
        world.env.pass(5_000);
        {
            let dropped = std::pin::pin!(names(&reads));
            assert!(futures::poll!(dropped).is_pending());
        }
        world.env.pass(5_000);
        names(&reads).await;
        assert_eq!(registry.lists.load(Relaxed), first + 3);
    });
}

#[test]
fn what_cannot_be_served_hides_no_other() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let reads = reader(&world, &registry);
        let nonsense = Bytes::from_static(b"nonsense");
        assert!(registry.replace("damaged", None, &nonsense).await.expect("memory"));
        let empty = Announced::default().encode().expect("JSON").into();
        assert!(registry.replace("empty", None, &empty).await.expect("memory"));
        let elsewhere = Announcement { table: "journal".to_owned(), ..announcement(1, &["a"], 1) };
        announce(&*registry, "elsewhere", &elsewhere).await.expect("memory");
        announce(&*registry, "guests", &announcement(1, &["a"], 1)).await.expect("memory");
        let found: Vec<String> = names(&reads).await.into_iter().map(|(name, ..)| name).collect();
        assert_eq!(found, ["balances", "guests", "resets", "sums"]);
        let error = announce(&*registry, "damaged", &announcement(1, &["a"], 1)).await;
        assert!(matches!(
            error,
            Err(AnnounceError::Refused(AnnouncementError::Undecodable { .. }))
        ));
    });
}

#[test]
fn hosts_that_announce_at_the_same_time_do_not_undo_each_other() {
    play(async || {
        let world = World::new();
        let registry = Watched::over(&world);
        let encoded = |version, events: &[&str]| -> Bytes {
            let with = Announced::default().with("guests", announcement(version, events, 5));
            let with = with.expect("no conflict").expect("it is new");
            with.encode().expect("JSON").into()
        };
        // The same announcement: it is there.
        *registry.rival.lock().unwrap() = Some(encoded(1, &["a"]));
        let now = announcement(1, &["a"], 6);
        let stored = announce(&*registry, "guests", &now).await.expect("it is there");
        assert_eq!(stored.last().map(|last| last.since), Some(Time(5)));
        // Another version comes first, and stays among the versions.
        *registry.rival.lock().unwrap() = Some(encoded(2, &["b"]));
        announce(&*registry, "guests", &announcement(3, &["c"], 7)).await.expect("no conflict");
        let conflict = announce(&*registry, "guests", &announcement(2, &["c"], 8)).await;
        let conflict = conflict.expect_err("version 2 has other event types").to_string();
        assert!(conflict.contains("`guests` has announced version 2"), "{conflict}");
        // The same version, but with other event types, comes first.
        *registry.rival.lock().unwrap() = Some(encoded(4, &["x"]));
        let conflict = announce(&*registry, "guests", &announcement(4, &["y"], 9)).await;
        assert!(matches!(conflict, Err(AnnounceError::Refused(AnnouncementError::Conflict(_)))));
        assert!(world.env.now() > Time(0), "no call waits");
    });
}
