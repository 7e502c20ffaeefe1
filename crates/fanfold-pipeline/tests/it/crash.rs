//! Crashes, and the time until their leases are over.

use std::future::Future;

pub(crate) use fanfold_pipeline::testing::{crash, crashes, survives};

use crate::world::{LEASE_MS, World};

/// What the call returns; `None` if it crashed, and its lease is over.
pub(crate) async fn fate<T>(world: &World, call: impl Future<Output = T>) -> Option<T> {
    let survived = survives(call).await;
    if survived.is_none() {
        world.env.pass(LEASE_MS);
    }
    survived
}
