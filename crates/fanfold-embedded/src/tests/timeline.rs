//! The timeline beyond the conformance suite: it is bounded, and survives a restart.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::Time;
use fanfold_pipeline::ports::{ActionId, OperatorTimeline};
use futures::executor::block_on;

use crate::SystemEnv;
use crate::disk::MemoryDisk;
use crate::store::folder::Folder;
use crate::store::{Driver, Store};
use crate::tables::StoredTimeline;

fn id(at: u64) -> ActionId {
    ActionId { at: Time(at), random: at * 7 }
}

fn times(timeline: &StoredTimeline) -> Vec<u64> {
    let page = block_on(timeline.list(None, 100)).expect("a list");
    page.records.into_iter().map(|(id, _)| id.at.0).collect()
}

#[test]
fn the_oldest_records_are_dropped_also_after_a_restart() {
    let disk = Arc::new(MemoryDisk::default());
    let open = || {
        let folder = Folder::take(disk.clone(), Path::new("/memory")).expect("a folder");
        let store = Store::open(folder, &[], Arc::new(SystemEnv), Driver::Callers);
        StoredTimeline::new(Arc::new(store.expect("a store")), 3)
    };
    let body = Bytes::from_static(b"body");
    let timeline = open();
    for at in [2, 1, 3] {
        block_on(timeline.begin(id(at), &body)).expect("a record");
    }
    assert_eq!(times(&timeline), [3, 2, 1]);
    block_on(timeline.end(id(1), &body)).expect("an end is no more record");
    assert_eq!(times(&timeline), [3, 2, 1]);
    block_on(timeline.begin(id(4), &body)).expect("a record");
    assert_eq!(times(&timeline), [4, 3, 2]);
    drop(timeline);

    let timeline = open();
    assert_eq!(times(&timeline), [4, 3, 2]);
    block_on(timeline.begin(id(5), &body)).expect("a record");
    assert_eq!(times(&timeline), [5, 4, 3]);
}
