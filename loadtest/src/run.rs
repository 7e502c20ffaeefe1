//! The two commands: `loadtest run` (load, audit, report) and `loadtest audit`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use jiff::tz::Offset;
use tempfile::TempPath;
use tokio::runtime::Builder;
use tokio::sync::watch::Receiver;

use crate::description::{self, Description, NoDescription};
use crate::init::{self, Init};
use crate::interrupt;
use crate::live::Live;
use crate::load::{Loaded, load};
use crate::options::{Audit, AuditOptions, ORG_PREFIX, Run, TargetOptions};
use crate::progress::Progress;
use crate::report::{Report, verdict_table};
use crate::text::{print, print_error, shown, shown_bytes};
use crate::workload::{Program, check_with_description};
use auditor::http::{Target, is_transient};
use auditor::{Model, Options, Verdict};
use hyper::StatusCode;

/// The timeout of the first request to the target.
const HELLO: Duration = Duration::from_secs(10);
/// The pause between two attempts to reach a target that starts: short beside its start.
const READY_PAUSE: Duration = Duration::from_millis(200);
/// Threads of the audit: few, since target and audit often share a small machine.
const AUDIT_THREADS: usize = 2;

/// Runs a load, and audits and reports it. Returns whether commands were accepted and the audit is
/// clean.
pub(crate) fn run(run: &Run) -> Result<bool> {
    run.check()?;
    let program = run.workload.as_deref().map(Program::read).transpose()?;
    if let Some(program) = &program {
        run.check_with(program)?;
    }
    let (json, html) = (Output::open(run.json.as_deref())?, Output::open(run.html.as_deref())?);
    let target =
        reach(&run.target, async |target: &Target| look_for(target, program.as_ref(), run).await)?;
    let live = Arc::new(Live::default());
    let stop = interrupt::watch(Some(Arc::clone(&live)))?;
    let receipts = Receipts::new(run.receipts.as_deref())?;
    let done = drive_and_audit(run, program.as_ref(), &target, receipts.path(), &live, stop);
    let (is_clean, is_breached) = match &done {
        Ok(Done { report: Report { audit: Some(audit), .. }, .. }) => {
            (audit.is_clean(), audit.breaches > 0)
        }
        Ok(Done { failure, .. }) => (failure.is_none(), false),
        Err(_) => (false, false),
    };
    // Keeps the receipts before anything can fail, since they prove a breach.
    let kept = (!is_clean).then(|| receipts.keep());
    let reported = done.and_then(|Done { report, failure }| {
        print(&report.table());
        let mut written = json.write(|| Ok(serde_json::to_string_pretty(&report)?));
        written = written.and(html.write(|| report.html()));
        failure.map_or(written, Err).map(|()| report.counts.accepted > 0)
    });
    match kept {
        None => {}
        Some(Ok(path)) => print(&format!("The receipts are kept: {}", path.display())),
        Some(Err(error)) => print_error(&format!("error: cannot keep the receipts: {error:#}")),
    }
    breach_first(is_breached, reported.map(|accepted| is_clean && accepted))
}

/// Runs an audit. Returns whether it is clean.
pub(crate) fn audit(audit: &Audit) -> Result<bool> {
    let json = Output::open(audit.json.as_deref())?;
    let target = reach(&audit.target, async |_| Ok(()))?;
    let stop = interrupt::watch(None)?;
    let verdict = audited(&target, &audit.receipts, &audit.audit, stop)?;
    print(&verdict_table(&verdict));
    let written = json.write(|| Ok(serde_json::to_string_pretty(&verdict)?));
    breach_first(verdict.breaches > 0, written.map(|()| verdict.is_clean()))
}

/// Drafts a workload file.
pub(crate) fn init(init: &Init) -> Result<bool> {
    let mut drafted = String::new();
    reach(&init.target, async |target: &Target| {
        let document = description::fetch(target).await;
        let document = document.context("`loadtest init` needs the target's description")?;
        let (service, today) =
            (init.service.as_deref(), Offset::UTC.to_datetime(Timestamp::now()).date());
        drafted = init::draft(&document, service, target.url(), today)?;
        Ok(())
    })?;
    let Some(path) = &init.out else {
        print(drafted.trim_end());
        return Ok(true);
    };
    let cannot_write = || format!("cannot write {}", path.display());
    let mut file = match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "the file {} exists, and may hold your changes: remove it, or choose another --out",
            path.display()
        ),
        file => file.with_context(cannot_write)?,
    };
    file.write_all(drafted.as_bytes()).with_context(cannot_write)?;
    print(&format!("{} is written. Edit it, then: loadtest run --workload {0}", path.display()));
    Ok(true)
}

/// Makes a breach the result, also if something else failed, which is printed.
fn breach_first(is_breached: bool, reported: Result<bool>) -> Result<bool> {
    match reported {
        Err(error) if is_breached => {
            print_error(&format!("error: {}", shown(&format!("{error:#}"))));
            Ok(false)
        }
        reported => reported,
    }
}

/// The result of a run.
struct Done {
    report: Report,
    /// Why the run did not do everything that was asked for.
    failure: Option<anyhow::Error>,
}

fn drive_and_audit(
    run: &Run,
    program: Option<&Arc<Program>>,
    target: &Target,
    receipts: &Path,
    live: &Live,
    stop: Receiver<bool>,
) -> Result<Done> {
    let Loaded { mut report, unwritten } = load(run, program, receipts, live)?;
    if run.no_audit || unwritten.is_some() {
        return Ok(Done { report, failure: unwritten });
    }
    match audited(target, receipts, &run.audit, stop) {
        Ok(verdict) => {
            report.audit = Some(verdict);
            Ok(Done { report, failure: None })
        }
        Err(error) => Ok(Done { report, failure: Some(error) }),
    }
}

/// Checks that the target answers, before anything is sent. `more`: further checks.
fn reach(options: &TargetOptions, more: impl AsyncFnOnce(&Target) -> Result<()>) -> Result<Target> {
    let target = Target::new(&options.url, options.token.as_deref())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_ready(&target, options.ready_within))?;
    runtime.block_on(more(&target))?;
    // A new one, since a connection belongs to the runtime that made it.
    Ok(Target::new(&options.url, options.token.as_deref())?)
}

/// Waits until the target answers: it may be starting.
async fn until_ready(target: &Target, patience: Duration) -> Result<()> {
    let (url, began, mut is_waiting) = (target.url(), Instant::now(), false);
    loop {
        let why = match target.get("/readyz", HELLO).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) if is_transient(answer.status.as_u16()) => {
                anyhow!("{url}/readyz answers {}", answer.status)
            }
            Ok(answer) => bail!("{url}/readyz answers {}", answer.status),
            Err(error) => anyhow::Error::new(error).context(format!("{url} does not answer")),
        };
        let within = humantime::format_duration(patience);
        if began.elapsed() >= patience {
            return Err(why.context(match is_waiting {
                true => format!("the target was not ready within {within}: start it first"),
                false => "the target is not ready: start it first".to_owned(),
            }));
        }
        if !is_waiting {
            print_error(&format!(
                "waiting up to {within} for the target: {}",
                shown(&format!("{why:#}"))
            ));
            is_waiting = true;
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Compares a workload file with the target's description, if it has one of the kind that is known
/// here.
async fn compare(target: &Target, program: &Arc<Program>) -> Result<()> {
    let no_description = |why: NoDescription| match why.is_of_another_kind() {
        true => {
            print_error(&format!(
                "note: the commands of {} are not checked before they are sent: {}",
                program.path().display(),
                shown(&why.to_string())
            ));
            Ok(())
        }
        false => Err(why.into()),
    };
    let document = match description::fetch(target).await {
        Ok(document) => document,
        Err(why) => return no_description(why),
    };
    let description = match Description::of(&document) {
        Ok(description) => description,
        Err(why) => return no_description(why),
    };
    for note in check_with_description(program, &description)? {
        print_error(&format!("note: {}: {}", program.path().display(), shown(&note)));
    }
    Ok(())
}

/// Checks that the target has the service and the views of a workload file, and that the views can
/// be waited for.
async fn look_for(target: &Target, program: Option<&Arc<Program>>, run: &Run) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    compare(target, program).await?;
    let (path, service) = (program.path().display(), &program.service);
    // A partition that no load uses: a number follows the prefix of each organisation.
    let partition = format!("org:{}x", run.org_prefix.as_deref().unwrap_or(ORG_PREFIX));
    let get = async |path: String| {
        let answer = target.get(&path, HELLO).await?;
        let why = format!("{path} answers {}: {}", answer.status, shown_bytes(&answer.body));
        anyhow::Ok((answer.status, why))
    };
    let (status, why) = get(format!("/logs/{service}/{partition}?limit=1")).await?;
    if !status.is_success() {
        bail!("{path}: the target has no service `{service}`: correct `service` ({why})");
    }
    for view in &program.views {
        let rows = format!("/views/{view}/{service}/{partition}?limit=1");
        let (status, why) = get(rows.clone()).await?;
        if !status.is_success() {
            bail!(
                "{path}: the target has no view `{view}` of `{service}`: correct `views` ({why})"
            );
        }
        // The log is empty, so 404 says that the view waits for seqs that exist.
        let (status, why) = get(format!("{rows}&seq=1")).await?;
        if status == StatusCode::BAD_REQUEST {
            bail!("{path}: the view `{view}` cannot be waited for: take it out of `views` ({why})");
        }
    }
    Ok(())
}

fn audited(
    target: &Target,
    receipts: &Path,
    how: &AuditOptions,
    stop: Receiver<bool>,
) -> Result<Verdict> {
    let options = Options {
        sample: how.audit_sample.map(|logs| logs as usize),
        // Short, since people may type it.
        seed: how.audit_seed.unwrap_or_else(|| rand::random::<u32>().into()),
        patience: how.audit_patience,
        model: how.model.map(Model::from),
        stop: Some(stop),
        ..Options::default()
    };
    let bar = Progress::counting("auditing logs", 0);
    let audit =
        auditor::audit(target, receipts, &options, |far| bar.count_of(far.logs, far.logs_total));
    // Several threads, so that pages are parsed while others arrive.
    let runtime = Builder::new_multi_thread().worker_threads(AUDIT_THREADS).enable_all().build()?;
    let verdict = runtime.block_on(audit);
    // A stopped audit may still read the file.
    runtime.shutdown_background();
    Ok(verdict?)
}

/// A file to write at the end. It is opened before the run, and keeps its content until then.
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
        let clear = |file: &File| match file.metadata()?.is_file() {
            true => file.set_len(0),
            // A pipe or a terminal has no length.
            false => Ok(()),
        };
        let written = clear(&file).and_then(|()| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The file of receipts: at a given path, or a temporary one that is kept only if something is
/// wrong.
enum Receipts {
    Given(PathBuf),
    Temporary(TempPath),
}

impl Receipts {
    fn new(given: Option<&Path>) -> Result<Self> {
        let temporary = || {
            let mut builder = tempfile::Builder::new();
            let file = builder.prefix("receipts-").suffix(".ndjson").tempfile();
            anyhow::Ok(Self::Temporary(
                file.context("cannot create a file for the receipts")?.into_temp_path(),
            ))
        };
        given.map_or_else(temporary, |path| Ok(Self::Given(path.to_owned())))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(path) => path,
        }
    }

    fn keep(self) -> Result<PathBuf> {
        match self {
            Self::Given(path) => Ok(path),
            Self::Temporary(path) => Ok(path.keep()?),
        }
    }
}
