//! The projector of one view takes a notification commit by commit. It skips a commit at or below
//! the cursor and applies the next one. Beyond a gap it waits, then reads the journal from the
//! cursor on.
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

/// Commits the entries of [`run`] one by one, and returns the messages.
async fn singles(world: &World, entries: u64) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for seq in 1..=entries {
        messages.push(world.commit(&acme(), &run([seq])).await);
    }
    messages
}

/// Ann says a text on the counter `a`. Some texts make a view fail.
fn say(id: u64, text: &str) -> Command {
    command("ann", id, "say", json!({"counter": "a", "text": text}))
}

fn reset(id: u64) -> Command {
    command("ann", id, "reset", json!({"counter": "a"}))
}
