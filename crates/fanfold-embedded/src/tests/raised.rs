//! A slot that an operator has raised survives a power cut, as an accepted command does.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Append, Commands, OperatorCommands, Slot, SlotRaise, Token};
use futures::executor::block_on;

use super::conformance::drained;
use crate::SystemEnv;
use crate::commands::StoredCommands;
use crate::disk::MemoryDisk;
use crate::limit::Limit;
use crate::store::folder::Folder;
use crate::store::{Driver, Store};

const ROOMY: Limit = Limit { items: 1_000, bytes: 1 << 20 };

fn open(disk: &MemoryDisk) -> (Arc<Store>, StoredCommands) {
    let folder = Folder::take(Arc::new(disk.clone()), Path::new("/data")).expect("a folder");
    let store = Store::open(folder, &[], Arc::new(SystemEnv), Driver::Callers);
    let store = Arc::new(store.expect("a store"));
    let commands = StoredCommands::open(store.clone(), 1, ROOMY, Arc::new(SystemEnv));
    (store, commands.expect("the command log"))
}

fn append(commands: &StoredCommands, log: &LogId, token: u128) -> Seq {
    let (body, at) = (Bytes::from_static(b"[]"), Time(token as u64));
    let append = Append { n: 1, body, at, token: Token(token) };
    block_on(commands.append(log, append)).expect("memory")
}

fn slot(commands: &StoredCommands, log: &LogId) -> Slot {
    block_on(commands.slot(log)).expect("memory").expect("a slot")
}

#[test]
fn a_raised_slot_survives_a_power_cut() {
    let [log, new, closed] = ["acme", "new", "closed"]
        .map(|name| format!("ledger/org:{name}").parse::<LogId>().expect("a log"));
    for has_checkpoint in [false, true] {
        let disk = MemoryDisk::default();
        let (store, commands) = open(&disk);
        append(&commands, &log, 1);
        append(&commands, &closed, 1);
        assert!(block_on(commands.close(&closed)).expect("memory"));
        for (log, to) in [(&log, 9), (&new, 4), (&closed, 5)] {
            let raise = block_on(commands.raise(log, Seq(to), Time(7), Token(2)));
            assert_eq!(raise, Ok(SlotRaise::Raised), "{log}");
        }
        if has_checkpoint {
            // As if all stages had passed what the command log has.
            store.checkpoint(commands.shown()).expect("a disk");
            commands.trim(commands.shown()).expect("a disk");
        }
        let (_store, commands) = open(&disk.after_power_cut(&mut |_| 0));
        for (log, to, closed) in [(&log, 9, false), (&new, 4, false), (&closed, 5, true)] {
            let raised = Slot { seq: Seq(to), n: 0, at: Time(7), token: Token(2), closed };
            assert_eq!(slot(&commands, log), raised, "with a checkpoint: {has_checkpoint}");
        }
        // What is replayed has the appends, and raises only without commands.
        for change in drained(commands.changes()) {
            assert_eq!(change.n == 0, change.token == Token(2), "{change:?}");
        }
        assert_eq!(append(&commands, &log, 3), Seq(10));
        assert_eq!(append(&commands, &new, 3), Seq(5));
    }
}
