//! A first start that ends at any call of the disk.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::SystemEnv;
use crate::disk::{DiskCall, DiskFault, DiskFaults, MemoryDisk};
use crate::store::folder::Folder;
use crate::store::{Driver, Store, Table};

const KEY: &[u8] = b"test";

/// The process ends at the call with this number, counted from 1: no later call takes effect.
struct EndsAt {
    call: u64,
    takes_effect: bool,
    calls: AtomicU64,
}

impl DiskFaults for EndsAt {
    fn fault(&self, _: DiskCall) -> DiskFault {
        match self.calls.fetch_add(1, Ordering::Relaxed) + 1 {
            call if call < self.call => DiskFault::None,
            call if call == self.call && self.takes_effect => DiskFault::After(ErrorKind::Other),
            _ => DiskFault::Before(ErrorKind::Other, 0),
        }
    }
}

fn open(disk: &MemoryDisk) -> Option<Store> {
    let folder = Folder::take(Arc::new(disk.clone()), Path::new("/data")).ok()?;
    Store::open(folder, &[], Arc::new(SystemEnv), Driver::Callers).ok()
}

/// The second start makes durable what the first one did not, before it stores anything.
#[test]
fn values_of_the_second_start_survive_a_power_cut() {
    for takes_effect in [false, true] {
        for call in 1.. {
            assert!(call < 1_000, "a start that never ends");
            let (disk, calls) = (MemoryDisk::default(), AtomicU64::new(0));
            let ends = EndsAt { call, takes_effect, calls };
            let is_whole = open(&disk.with_faults(Arc::new(ends))).is_some();

            let disk = disk.copied();
            let store = open(&disk).expect("the second start opens");
            let kept = Bytes::from_static(b"kept");
            store.put_now(Table::META, KEY, Some(kept.clone())).expect("a disk");
            drop(store);
            let third = open(&disk.after_power_cut(&mut |_| 0)).expect("the third start opens");
            let found = third.get(Table::META, KEY).expect("a disk");
            assert_eq!(found, Some(kept), "the first start ended at call {call}, {takes_effect}");
            if is_whole {
                break;
            }
        }
    }
}
