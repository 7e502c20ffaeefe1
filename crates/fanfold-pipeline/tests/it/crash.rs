//! Crashes of calls, and the expiry of their leases.

use std::future::Future;

pub(crate) use fanfold_pipeline::testing::{crash, crashes, survives};

use crate::world::{LEASE_MS, World};

/// What the call returns. After a crash it lets the lease expire, and returns `None`.
pub(crate) async fn fate<T>(world: &World, call: impl Future<Output = T>) -> Option<T> {
    let survived = survives(call).await;
    if survived.is_none() {
        world.env.pass(LEASE_MS);
    }
    survived
}
