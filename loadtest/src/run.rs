//! `loadtest run`: load, audit, report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempPath;
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::audit::{self, Options, Verdict};
use crate::http::Target;
use crate::interrupt;
use crate::live::Live;
use crate::load::load;
use crate::options::{Audit, HowToAudit, Run, Where};
use crate::progress::Progress;
use crate::report::verdict_table;

/// How long the target may take to say that it is there.
const HELLO: Duration = Duration::from_secs(10);
/// Threads of the audit: as many as are left beside a target on a small machine.
const AUDIT_THREADS: usize = 2;

/// Whether everything was as it should be.
pub(crate) fn run(run: &Run) -> Result<bool> {
    run.check()?;
    let target = reach(&run.place)?;
    let live = Arc::new(Live::default());
    let enough = interrupt::watch(Arc::clone(&live))?;
    let receipts = Receipts::new(run.receipts.as_deref())?;
    let mut report = load(run, receipts.path(), &live)?;
    if !run.no_audit {
        report.audit = Some(audited(&target, receipts.path(), &run.how, &enough)?);
    }
    println!("{}", report.table());
    if let Some(path) = &run.json {
        write(path, &serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &run.html {
        write(path, &report.html()?)?;
    }
    let is_clean = report.audit.as_ref().is_none_or(Verdict::is_clean);
    if !is_clean {
        println!("The receipts are kept: {}", receipts.keep()?.display());
    }
    Ok(is_clean && report.counts.accepted > 0)
}

/// Whether the audit found nothing. One that did not come to its end has found something.
pub(crate) fn audit(audit: &Audit) -> Result<bool> {
    let target = reach(&audit.place)?;
    let enough = interrupt::watch(Arc::default())?;
    let verdict = audited(&target, &audit.receipts, &audit.how, &enough)?;
    println!("{}", verdict_table(&verdict));
    if let Some(path) = &audit.json {
        write(path, &serde_json::to_string_pretty(&verdict)?)?;
    }
    Ok(verdict.is_clean())
}

/// Sees that somebody is there, before anything is sent.
fn reach(place: &Where) -> Result<Target> {
    let target = Target::new(&place.target, place.token.as_deref())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let url = target.url();
    let answer = runtime.block_on(target.get("/healthz", HELLO));
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    if !answer.status.is_success() {
        bail!("{url}/healthz answers {}", answer.status);
    }
    // A connection belongs to the runtime that made it.
    Ok(Target::new(&place.target, place.token.as_deref())?)
}

fn audited(target: &Target, receipts: &Path, how: &HowToAudit, enough: &Notify) -> Result<Verdict> {
    let options =
        Options { sample: how.audit_sample, patience: how.audit_patience, ..Options::default() };
    let bar = Progress::counting("auditing logs", 0);
    let audit =
        audit::audit(target, receipts, &options, |far| bar.count_of(far.logs, far.logs_total));
    // More than one thread: pages are parsed while others come.
    let runtime = Builder::new_multi_thread().worker_threads(AUDIT_THREADS).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            verdict = audit => Ok(verdict?),
            () = enough.notified() => Ok(Verdict {
                unfinished: Some("ended by Ctrl-C".to_owned()),
                ..Verdict::default()
            }),
        }
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The file of receipts: where it was asked for, or one that goes when nothing is wrong.
enum Receipts {
    Asked(PathBuf),
    Passing(TempPath),
}

impl Receipts {
    fn new(asked: Option<&Path>) -> Result<Self> {
        let passing = || {
            let mut builder = tempfile::Builder::new();
            let file = builder.prefix("receipts-").suffix(".ndjson").tempfile();
            anyhow::Ok(Self::Passing(file.context("no file for the receipts")?.into_temp_path()))
        };
        asked.map_or_else(passing, |path| Ok(Self::Asked(path.to_owned())))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Asked(path) => path,
            Self::Passing(path) => path,
        }
    }

    fn keep(self) -> Result<PathBuf> {
        match self {
            Self::Asked(path) => Ok(path),
            Self::Passing(path) => Ok(path.keep()?),
        }
    }
}
