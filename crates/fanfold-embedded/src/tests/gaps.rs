//! A restarted engine finds the views with gaps, until a sweep has closed these.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fanfold::{Seq, Time};
use fanfold_pipeline::ports::ViewTable;

use crate::SystemEnv;
use crate::disk::MemoryDisk;
use crate::recovery::{StoredGaps, ViewGaps};
use crate::store::folder::Folder;
use crate::store::{Driver, Store};
use crate::subscription::Deliveries;
use crate::tables::StoredView;

const VIEW: &str = "balances";

fn open(disk: &MemoryDisk) -> Arc<Store> {
    let folder = Folder::take(Arc::new(disk.clone()), Path::new("/data")).expect("a folder");
    let store = Store::open(folder, &[VIEW.to_owned()], Arc::new(SystemEnv), Driver::Callers);
    Arc::new(store.expect("a store"))
}

/// The disk after a power cut that keeps only synced data, and the stored views with gaps.
fn after_power_cut(disk: &MemoryDisk) -> (MemoryDisk, BTreeSet<String>) {
    let disk = disk.after_power_cut(&mut |_| 0);
    let left = StoredGaps::left(&open(&disk)).expect("what is stored");
    (disk.after_power_cut(&mut |_| 0), left)
}

fn view(store: &Arc<Store>, has_unclosed: bool) -> (Arc<StoredView>, Arc<ViewGaps>) {
    let table = Arc::new(StoredView::new(store.clone(), store.view(VIEW).expect("its table")));
    let gaps = ViewGaps::new(VIEW, Arc::new(Deliveries::default()), table.clone(), has_unclosed);
    (table, Arc::new(gaps))
}

#[tokio::test]
async fn gaps_are_known_after_a_crash_until_they_are_closed() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let (table, gaps) = view(&store, false);
    let mut stored = StoredGaps::new(store.clone(), vec![gaps.clone()], BTreeSet::new());
    stored.store().expect("a disk");
    assert_eq!(after_power_cut(&disk).1, BTreeSet::new(), "the view lacks nothing");

    let log = "ledger/org:acme".parse().expect("a log");
    table.mark_behind(&log, Seq(1)).await.expect("a disk");
    assert!(gaps.are_open());
    stored.store().expect("a disk");
    let (other, left) = after_power_cut(&disk);
    assert_eq!(left, [VIEW.to_owned()].into());

    // A run that does not host the view keeps its gaps.
    let elsewhere = open(&other);
    StoredGaps::new(elsewhere.clone(), vec![], left.clone()).store().expect("a disk");
    assert_eq!(StoredGaps::left(&elsewhere).expect("what is stored"), left);
    // A run that hosts the view keeps its gaps until the view has caught up.
    let (_, again) = view(&elsewhere, true);
    let mut kept = StoredGaps::new(elsewhere.clone(), vec![again.clone()], left.clone());
    kept.store().expect("a disk");
    assert_eq!(StoredGaps::left(&elsewhere).expect("what is stored"), left);
    again.close_earlier();
    kept.store().expect("a disk");
    assert_eq!(StoredGaps::left(&elsewhere).expect("what is stored"), BTreeSet::new());

    // The first walk may have passed the log before it was behind; the next one closes the gap.
    for (at_ms, is_open) in [(100_000, true), (105_000, true), (120_000, false)] {
        let closes = gaps.walk_begins(Time(at_ms));
        gaps.walk_ended(closes);
        assert_eq!(gaps.are_open(), is_open, "after the walk at {at_ms} ms");
        stored.store().expect("a disk");
        assert_eq!(after_power_cut(&disk).1.is_empty(), !is_open);
    }
}
