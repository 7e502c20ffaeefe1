//! Ctrl-C: the first ends the load, and what was done is audited and reported; the second ends the
//! audit, and what it has found is reported; the third ends everything at once.

use std::process;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::sync::watch;

use crate::live::Live;

/// What a shell makes of a process that SIGINT has ended: 128, and the signal's number.
const ENDED_BY_SIGINT: i32 = 130;

/// Watches for Ctrl-C from now on. What is returned turns true when the audit is to end: at the
/// second, or, without a load, at the first.
pub(crate) fn watch(live: Option<Arc<Live>>) -> Result<watch::Receiver<bool>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (end, ended) = watch::channel(false);
    let wait = move || {
        // Without signals there is nobody to wait for.
        let heard = || runtime.block_on(ctrl_c()).is_ok();
        if let Some(live) = live {
            if !heard() {
                return;
            }
            live.stop();
        }
        if heard() {
            // Nobody may be auditing any more.
            let _ = end.send(true);
        }
        if heard() {
            process::exit(ENDED_BY_SIGINT);
        }
    };
    thread::Builder::new().name("interrupts".into()).spawn(wait).context("no thread starts")?;
    Ok(ended)
}
