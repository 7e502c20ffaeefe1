//! `fanfold doctor --repair`: what is done for each finding, and why not.

use fanfold::LogId;
use serde::Serialize;
use serde_json::json;

use crate::client::{Client, Target};
use crate::console;
use crate::doctor::{Done, Finding};
use crate::output::Output;
use crate::rebuild::{Rebuilding, rebuild_all};

/// What was done for a log.
#[derive(Serialize)]
pub(crate) struct Repaired {
    log: LogId,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    /// How many findings this is for.
    #[serde(skip)]
    findings: u64,
    /// What was done; `None`: it was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<String>,
    /// Why it was left, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

/// What `--repair` makes of the findings of a page of logs.
#[derive(Default)]
pub(crate) struct Repair {
    /// Views whose logs are rebuilt, each with its findings.
    rebuilds: Vec<(Rebuilding, String, u64)>,
    repaired: Vec<Repaired>,
}

/// What an operator does about a finding that is not mended by itself.
fn hint(what: &str, log: &LogId, view: &str) -> String {
    match what {
        "parked" => format!(
            "`fanfold resume {log} --view {view}` if it can be applied now, else `fanfold skip {log} --view {view}`"
        ),
        "document_wrong" | "head_ahead" => {
            "give the service a new DOCUMENT_VERSION, or delete the log's items in the state table while no processor runs: the runbook says how. A running processor may have the wrong document in memory".to_owned()
        }
        "cursor_behind" => "look at the view's log and at its dead letters".to_owned(),
        "slot_ahead" => "look at the relay and the processor, and at `fanfold parked`".to_owned(),
        _ => "the runbook says what to do".to_owned(),
    }
}

/// Whether a rebuild of the view's log mends it.
fn is_mended_by_rebuild(what: &str) -> bool {
    matches!(what, "row_wrong" | "row_missing" | "row_unknown" | "cursor_ahead" | "rebuild")
}

impl Repair {
    /// Does what is safe about the findings of a log; rebuilds of views only with [`Repair::end`]. With `raises_only`,
    /// nothing but raising its slot.
    pub(crate) fn log(
        &mut self,
        client: &Client,
        log: &LogId,
        findings: &[Finding],
        raises_only: bool,
    ) {
        let is_parked = |view: &str| {
            findings.iter().any(|of| of.what == "parked" && of.view.as_deref() == Some(view))
        };
        for Finding { what, view, .. } in findings {
            let name = view.as_deref().unwrap_or_default();
            if what == "slot_behind" {
                let (done, left) = match raise(client, log) {
                    Ok(Some(seq)) => (Some(format!("the slot is raised to {seq}")), None),
                    Ok(None) => (Some("the slot is not behind any more".to_owned()), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                self.note(log, what, view, 1, done, left);
            } else if raises_only {
            } else if !is_mended_by_rebuild(what) {
                self.note(log, what, view, 1, None, Some(hint(what, log, name)));
            } else if is_parked(name) {
                // Its next entry may have crashed a process, and a rebuild would have it tried again.
                let why = format!("the view is parked: first {}", hint("parked", log, name));
                self.note(log, what, view, 1, None, Some(why));
            } else {
                let same =
                    |(of, _, _): &&mut (Rebuilding, String, u64)| of.log == *log && of.view == name;
                match self.rebuilds.iter_mut().find(same) {
                    Some((_, _, findings)) => *findings += 1,
                    None => {
                        let rebuilding = Rebuilding::new(name.to_owned(), log.clone());
                        self.rebuilds.push((rebuilding, what.clone(), 1));
                    }
                }
            }
        }
    }

    fn note(
        &mut self,
        log: &LogId,
        what: &str,
        view: &Option<String>,
        findings: u64,
        done: Option<String>,
        left: Option<String>,
    ) {
        let (log, what, view) = (log.clone(), what.to_owned(), view.clone());
        self.repaired.push(Repaired { log, what, view, findings, done, left });
    }

    /// Rebuilds views, and prints what was done. Returns how many findings are mended, and how many slots were raised.
    pub(crate) fn end(
        mut self,
        client: &Client,
        as_json: bool,
        output: &mut Output,
    ) -> anyhow::Result<u64> {
        let (mut rebuilds, mut of) = (Vec::new(), Vec::new());
        for (rebuilding, what, findings) in std::mem::take(&mut self.rebuilds) {
            of.push((rebuilding.log.clone(), rebuilding.view.clone(), what, findings));
            rebuilds.push(rebuilding);
        }
        rebuild_all(client, rebuilds, |rebuilt, ended| {
            let same = |(log, view, _, _): &&(LogId, String, String, u64)| {
                *log == rebuilt.log && *view == rebuilt.view
            };
            let Some((log, view, what, findings)) = of.iter().find(same) else { return };
            let (done, left) = match ended {
                Ok(()) => {
                    let rows = rebuilt.removed;
                    let done =
                        format!("{rows} rows are removed, and the view applies the journal again");
                    (Some(done), None)
                }
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            self.note(log, what, &Some(view.clone()), *findings, done, left);
        });
        let mut mended = 0;
        for repaired in &self.repaired {
            if repaired.done.is_some() {
                mended += repaired.findings;
            }
            if as_json {
                output.bytes(json!({ "repair": repaired }).to_string().as_bytes())?;
                continue;
            }
            let Repaired { log, what, view, done, left, .. } = repaired;
            let view = view.as_ref().map_or_else(String::new, |view| format!(" {view}"));
            match (done, left) {
                (Some(done), _) => console::print(format_args!("{log}{view}: {done}")),
                (None, left) => {
                    let left = left.as_deref().unwrap_or_default();
                    console::print(format_args!("{log} {what}{view} is left: {left}"));
                }
            }
        }
        Ok(mended)
    }
}

/// Raises the log's slot; returns the seq that it has then, or nothing if it was not behind any more.
fn raise(client: &Client, log: &LogId) -> anyhow::Result<Option<u64>> {
    let body = json!({ "log": log }).to_string();
    let answer = client.post(&Target::path(&["ops", "raise"]), body.as_bytes())?;
    Ok(answer.read::<Done>()?.seq)
}
