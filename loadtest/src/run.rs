//! `loadtest run`: load, audit, report.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempPath;
use tokio::runtime::Builder;
use tokio::sync::watch::Receiver;

use crate::interrupt;
use crate::live::Live;
use crate::load::{Loaded, load};
use crate::options::{Audit, HowToAudit, Run, Where};
use crate::progress::Progress;
use crate::report::{Report, verdict_table};
use crate::text::{complain, print, shown};
use auditor::http::Target;
use auditor::{Options, Verdict};

/// How long the target may take to say that it is there.
const HELLO: Duration = Duration::from_secs(10);
/// Threads of the audit: as many as are left beside a target on a small machine.
const AUDIT_THREADS: usize = 2;

/// Whether everything was as it should be.
pub(crate) fn run(run: &Run) -> Result<bool> {
    run.check()?;
    let (json, html) = (Output::open(run.json.as_deref())?, Output::open(run.html.as_deref())?);
    let target = reach(&run.place)?;
    let live = Arc::new(Live::default());
    let enough = interrupt::watch(Some(Arc::clone(&live)))?;
    let receipts = Receipts::new(run.receipts.as_deref())?;
    let done = drive_and_audit(run, &target, receipts.path(), &live, enough);
    let (is_clean, is_breached) = match &done {
        Ok(Done { report: Report { audit: Some(audit), .. }, .. }) => {
            (audit.is_clean(), audit.breaches > 0)
        }
        Ok(Done { trouble, .. }) => (trouble.is_none(), false),
        Err(_) => (false, false),
    };
    // Before anything else can fail: it is what a breach is shown with.
    let kept = (!is_clean).then(|| receipts.keep());
    let told = done.and_then(|Done { report, trouble }| {
        print(&report.table());
        let mut written = json.write(|| Ok(serde_json::to_string_pretty(&report)?));
        written = written.and(html.write(|| report.html()));
        trouble.map_or(written, Err).map(|()| report.counts.accepted > 0)
    });
    match kept {
        None => {}
        Some(Ok(path)) => print(&format!("The receipts are kept: {}", path.display())),
        Some(Err(error)) => complain(&format!("error: the receipts cannot be kept: {error:#}")),
    }
    outranked(is_breached, told.map(|accepted| is_clean && accepted))
}

/// Whether the audit found nothing. One that did not come to its end has found something.
pub(crate) fn audit(audit: &Audit) -> Result<bool> {
    let json = Output::open(audit.json.as_deref())?;
    let target = reach(&audit.place)?;
    let enough = interrupt::watch(None)?;
    let verdict = audited(&target, &audit.receipts, &audit.how, enough)?;
    print(&verdict_table(&verdict));
    let written = json.write(|| Ok(serde_json::to_string_pretty(&verdict)?));
    outranked(verdict.breaches > 0, written.map(|()| verdict.is_clean()))
}

/// A breach outranks whatever else went wrong, which is said nevertheless.
fn outranked(is_breached: bool, told: Result<bool>) -> Result<bool> {
    match told {
        Err(error) if is_breached => {
            complain(&format!("error: {}", shown(&format!("{error:#}"))));
            Ok(false)
        }
        told => told,
    }
}

/// What came of a run.
struct Done {
    report: Report,
    /// What kept it from being done as it was asked for.
    trouble: Option<anyhow::Error>,
}

fn drive_and_audit(
    run: &Run,
    target: &Target,
    receipts: &Path,
    live: &Live,
    enough: Receiver<bool>,
) -> Result<Done> {
    let Loaded { mut report, unwritten } = load(run, receipts, live)?;
    if run.no_audit || unwritten.is_some() {
        return Ok(Done { report, trouble: unwritten });
    }
    match audited(target, receipts, &run.how, enough) {
        Ok(verdict) => {
            report.audit = Some(verdict);
            Ok(Done { report, trouble: None })
        }
        Err(error) => Ok(Done { report, trouble: Some(error) }),
    }
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

fn audited(
    target: &Target,
    receipts: &Path,
    how: &HowToAudit,
    enough: Receiver<bool>,
) -> Result<Verdict> {
    let options = Options {
        sample: how.audit_sample.map(|logs| logs as usize),
        // Short, since somebody may have to type it.
        seed: how.audit_seed.unwrap_or_else(|| rand::random::<u32>().into()),
        patience: how.audit_patience,
        stop: Some(enough),
        ..Options::default()
    };
    let bar = Progress::counting("auditing logs", 0);
    let audit =
        auditor::audit(target, receipts, &options, |far| bar.count_of(far.logs, far.logs_total));
    // More than one thread: pages are parsed while others come.
    let runtime = Builder::new_multi_thread().worker_threads(AUDIT_THREADS).enable_all().build()?;
    let verdict = runtime.block_on(audit);
    // If it was ended, somebody may still be reading the file.
    runtime.shutdown_background();
    Ok(verdict?)
}

/// A file that is to be written in the end. It is opened before anything is done, and what is in it
/// stays until then.
struct Output(Option<(PathBuf, File)>);

impl Output {
    fn open(path: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::options().create(true).truncate(false).write(true).open(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok((path.to_owned(), file))
        };
        Ok(Self(path.map(open).transpose()?))
    }

    fn write(self, text: impl FnOnce() -> Result<String>) -> Result<()> {
        let Some((path, mut file)) = self.0 else { return Ok(()) };
        let text = text()?;
        let begin_anew = |file: &File| match file.metadata()?.is_file() {
            true => file.set_len(0),
            // A pipe, a terminal.
            false => Ok(()),
        };
        let written = begin_anew(&file).and_then(|()| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
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
