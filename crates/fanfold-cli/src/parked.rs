//! `fanfold parked`, `resume`, `skip` and `resend`: what waits, and what an operator does with it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use fanfold::LogId;
use fanfold_http::limits::PAGE_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::{Client, Server, Target};
use crate::console;
use crate::output::{Output, ignore_closed_output, print};

/// Items that are let go on in a second, unless the caller says otherwise. Source: our choice. Each makes the processor
/// load a log, and the load beside the clients' own should be small.
const RATE: u32 = 50;

/// The arguments of `parked`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line of JSON per item that waits: commands and commits by log, seq and reason, and logs \
for which a view is parked. The commands `resume` and `skip` take the log, the seq and the view from there."
)]
pub(crate) struct Parked {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    which: Which,
}

/// Some of what waits.
#[derive(Debug, Args)]
struct Which {
    /// Only logs for which this view is parked. Without it, commands and commits, then all views.
    #[arg(long)]
    view: Option<String>,
    /// Only logs of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only what waits for this reason: `gap`, `no_service`, `cannot_fold`, `conflict`, `undecodable`, `suspect`,
    /// `unpublished` or `given_up`.
    #[arg(long, conflicts_with = "view")]
    reason: Option<String>,
}

/// The arguments of `resume`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "A suspect command waits for its turn again; a command in conflict is accepted again, at a new seq; a \
view tries its entry again; everything else is looked at again.\n\nPrints one line of JSON per item. Exit codes: 0, all \
go on; 1, some could not; 2, the arguments are wrong."
)]
pub(crate) struct Resume {
    #[command(flatten)]
    server: Server,
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION", required_unless_present = "all")]
    log: Option<LogId>,
    /// The seq of a command. A view is parked at one entry.
    #[arg(required_unless_present_any = ["view", "all"], conflicts_with = "view")]
    seq: Option<u64>,
    /// Which of several items at that seq.
    #[arg(long, requires = "seq")]
    identity: Option<String>,
    /// The view that is parked for the log; with --all, only logs for which it is parked.
    #[arg(long)]
    view: Option<String>,
    /// Let everything go on that `parked` shows with the same flags, in order.
    #[arg(long, conflicts_with_all = ["log", "seq", "identity"])]
    all: bool,
    /// With --all, only logs of this service.
    #[arg(long, requires = "all")]
    service: Option<String>,
    /// With --all, only what waits for this reason.
    #[arg(long, requires = "all", conflicts_with = "view")]
    reason: Option<String>,
    /// With --all, at most so many items a second.
    #[arg(long, requires = "all", default_value_t = RATE, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

/// The arguments of `skip`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "The entry of a command that is skipped says `lost`, with the reason, and its id can be used again. A view \
that skips an entry never shows it. Both cannot be taken back."
)]
pub(crate) struct Skip {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    item: OneItem,
    /// Why: all that the log will say of the command.
    #[arg(long)]
    reason: String,
}

/// The arguments of `resend`.
#[derive(Debug, Args)]
#[command(
    after_help = "The command gets a new seq, and the entry there is of the user `resend`. It counts once, however \
often it is sent again."
)]
pub(crate) struct Resend {
    #[command(flatten)]
    server: Server,
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: LogId,
    /// The seq of the faulted entry.
    seq: u64,
}

/// One item that waits.
#[derive(Debug, Args)]
struct OneItem {
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: LogId,
    /// The seq of a command. A view is parked at one entry.
    #[arg(required_unless_present = "view", conflicts_with = "view")]
    seq: Option<u64>,
    /// Which of several items at that seq.
    #[arg(long, requires = "seq")]
    identity: Option<String>,
    /// The view that is parked for the log.
    #[arg(long)]
    view: Option<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    parked: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    log: LogId,
    seq: u64,
    reason: String,
    identity: Option<String>,
    view: Option<String>,
    #[serde(default)]
    rebuild: bool,
}

#[derive(Deserialize)]
struct Views {
    views: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    view: String,
}

impl Parked {
    /// Prints what waits.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let (client, mut output) = (Client::new(&self.server)?, Output::default());
        for_each(&client, &self.which, |_, item| output.line(item))?;
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Resume {
    /// Lets items go on.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.resume())
    }

    fn resume(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        if let Some(log) = self.log {
            let Self { seq, identity, view, .. } = self;
            let item = OneItem { log, seq, identity, view };
            return act(&client, "resume", &item.body());
        }
        let which = Which { view: self.view, service: self.service, reason: self.reason };
        // The list is read first, since an item that goes on may be parked again.
        let (mut bodies, mut nudged) = (Vec::new(), BTreeSet::new());
        for_each(&client, &which, |item, _| {
            if item.rebuild {
                // Only the rebuild releases it.
                return Ok(());
            }
            let item_alone = matches!(&*item.reason, "suspect" | "conflict" | "undecodable");
            match &item.view {
                Some(view) => bodies.push(json!({ "view": view, "log": item.log })),
                // What makes the processor look at a log is for all that waits there.
                None if !item_alone && !nudged.insert(item.log.clone()) => {}
                None => {
                    let Item { log, seq, identity, .. } = item;
                    bodies.push(json!({ "log": log, "seq": seq, "identity": identity }));
                }
            }
            Ok(())
        })?;
        let pause = Duration::from_secs(1) / self.rate;
        let (mut next, mut output, mut failed) = (Instant::now(), Output::default(), 0);
        for body in &bodies {
            sleep(next.saturating_duration_since(Instant::now()));
            next = Instant::now() + pause;
            let answer =
                client.post(&Target::path(&["ops", "resume"]), body.to_string().as_bytes())?;
            match answer.read::<&RawValue>() {
                Ok(done) => output.line(done)?,
                Err(error) => {
                    console::print(format_args!("error: {body}: {error:#}"));
                    failed += 1;
                }
            }
            output.flush()?;
        }
        match failed {
            0 => Ok(ExitCode::SUCCESS),
            _ => bail!("{failed} of {} items could not go on", bodies.len()),
        }
    }
}

impl Skip {
    /// Gives an item up.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let mut body = self.item.body();
        body["reason"] = self.reason.into();
        ignore_closed_output(act(&client, "skip", &body))
    }
}

impl Resend {
    /// Sends a faulted command again.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let body = json!({ "log": self.log, "seq": self.seq });
        ignore_closed_output(act(&client, "resend", &body))
    }
}

impl OneItem {
    fn body(&self) -> Value {
        let Self { log, seq, identity, view } = self;
        match view {
            Some(view) => json!({ "view": view, "log": log }),
            None => json!({ "log": log, "seq": seq, "identity": identity }),
        }
    }
}

/// Does something with one item, and prints what was done.
fn act(client: &Client, action: &str, body: &Value) -> anyhow::Result<ExitCode> {
    let answer = client.post(&Target::path(&["ops", action]), body.to_string().as_bytes())?;
    print(&[answer.read()?])
}

/// Calls `each` with everything that waits, in order.
fn for_each(
    client: &Client,
    which: &Which,
    mut each: impl FnMut(&Item, &RawValue) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Views by name; `None` is what is no view.
    let mut lists = vec![which.view.clone()];
    if which.view.is_none() && which.reason.is_none() {
        let answer = client.get(&Target::path(&["views"]))?;
        let Views { views } = answer.read()?;
        lists.extend(views.into_iter().map(|served| Some(served.view)));
    }
    for view in &lists {
        let mut after: Option<String> = None;
        loop {
            let target = match view {
                Some(view) => Target::path(&["ops", "parked", view]),
                None => {
                    let all = Target::path(&["ops", "parked"]);
                    all.query_if("service", which.service.as_ref())
                }
            };
            let target = target.query("limit", PAGE_MAX);
            let answer = client.get(&target.query_if("after", after.as_ref()))?;
            let page: Page<'_> = answer.read()?;
            for found in &page.parked {
                let item: Item = serde_json::from_str(found.get()).context("an item that waits")?;
                let is_of_service =
                    which.service.as_ref().is_none_or(|service| service == item.log.service());
                let is_for_reason =
                    which.reason.as_ref().is_none_or(|reason| *reason == item.reason);
                if is_of_service && is_for_reason {
                    each(&item, found)?;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}
