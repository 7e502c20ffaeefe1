//! Ctrl-C: the first ends the load, and what was done is audited and reported; the second ends the
//! audit.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::live::Live;

/// Watches for Ctrl-C from now on. What is returned is told of the second.
pub(crate) fn watch(live: Arc<Live>) -> Result<Arc<Notify>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let enough = Arc::new(Notify::new());
    let told = Arc::clone(&enough);
    let wait = move || {
        runtime.block_on(async {
            for tell in [&|| live.stop() as _, &|| told.notify_one()] as [&dyn Fn(); 2] {
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                tell();
            }
        });
    };
    thread::Builder::new().name("interrupts".into()).spawn(wait).context("no thread starts")?;
    Ok(enough)
}
