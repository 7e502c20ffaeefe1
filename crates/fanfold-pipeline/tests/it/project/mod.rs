//! The projector of one view takes a notification commit by commit. At or below the cursor: done.
//! Next in line: apply. Beyond: wait, then read the journal from the cursor on.
//!
//! `docs/design.md#project`.

mod cursor;
mod filtered;
mod leases;
mod parking;
mod random;
mod rows;
mod suspect;

use bytes::Bytes;
use fanfold::Command;
use serde_json::json;

use crate::world::{World, acme, command, run};

/// Commits of one entry each, of [`run`]; their messages.
async fn singles(world: &World, entries: u64) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for seq in 1..=entries {
        messages.push(world.commit(&acme(), &run([seq])).await);
    }
    messages
}

/// Ann says something that the counter `a` keeps, or that its view cannot bear.
fn say(id: u64, text: &str) -> Command {
    command("ann", id, "say", json!({"counter": "a", "text": text}))
}

fn reset(id: u64) -> Command {
    command("ann", id, "reset", json!({"counter": "a"}))
}
