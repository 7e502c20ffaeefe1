//! Ctrl-C: the first ends the load, and what was done is audited and reported; the second ends the
//! audit, and its findings are reported; the third ends the process.

use std::process;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::sync::watch;

use crate::live::Live;

/// The exit code of a shell for a process that SIGINT ended: 128 plus the signal's number.
const ENDED_BY_SIGINT: i32 = 130;

/// Watches for Ctrl-C from now on. The returned channel turns true when the audit shall end: at the
/// second Ctrl-C, or at the first if there is no load.
pub(crate) fn watch(live: Option<Arc<Live>>) -> Result<watch::Receiver<bool>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (end, ended) = watch::channel(false);
    let wait = move || {
        // An error means that signals cannot be awaited.
        let signalled = || runtime.block_on(ctrl_c()).is_ok();
        if let Some(live) = live {
            if !signalled() {
                return;
            }
            live.stop();
        }
        if signalled() {
            // The receiver is gone if the audit is over.
            let _ = end.send(true);
        }
        if signalled() {
            process::exit(ENDED_BY_SIGINT);
        }
    };
    thread::Builder::new()
        .name("interrupts".into())
        .spawn(wait)
        .context("cannot start a thread")?;
    Ok(ended)
}
