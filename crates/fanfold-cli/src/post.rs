//! Sends batches with `POST /commands` until each command has its final result.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use fanfold::LogId;
use humantime::format_duration;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::batches::Item;
use crate::client::{Client, Target, is_temporary_status};
use crate::console;
use crate::retry::Backoff;

/// The final result of a command at the edge.
pub(crate) enum CommandResult {
    /// The command was accepted.
    Receipt {
        /// The command's log.
        log: LogId,
        /// Its position in the log.
        seq: u64,
        /// The receipt as the server sent it.
        raw: Box<RawValue>,
    },
    /// The command was refused, with this problem.
    Refused(Box<RawValue>),
}

/// Sends batches to one server.
pub(crate) struct Post {
    client: Client,
    give_up: Duration,
    /// Whether to retry even if the server has never answered.
    waits_for_first: bool,
}

#[derive(Deserialize)]
struct Answers<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Receipt {
    log: LogId,
    seq: u64,
}

#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    problem: &'a RawValue,
}

#[derive(Deserialize)]
struct Problem {
    status: u16,
    #[serde(default)]
    detail: String,
}

/// Why some commands have no final result yet.
struct Temporary {
    why: String,
    /// The value of the header `Retry-After`.
    retry_after: Option<Duration>,
}

impl Post {
    /// Retries each batch for `give_up`.
    pub(crate) fn new(client: Client, give_up: Duration, waits_for_first: bool) -> Self {
        Self { client, give_up, waits_for_first }
    }

    /// The client of the same server.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// When to give up on something that begins now.
    pub(crate) fn until(&self) -> Instant {
        let now = Instant::now();
        // If the sum is later than an `Instant` can be, a year replaces it.
        now.checked_add(self.give_up).unwrap_or(now + Duration::from_secs(365 * 86_400))
    }

    /// Sends the commands until each has its result. Those that the server cannot take now are sent
    /// again in their order and with the same ids. After an error some have no result, and the
    /// caller must not send later commands.
    pub(crate) fn batch(
        &self,
        items: &[Item],
        answers: &mut [Option<CommandResult>],
    ) -> anyhow::Result<()> {
        let mut backoff = Backoff::within(self.give_up);
        loop {
            let open: Vec<usize> = (0..items.len()).filter(|at| answers[*at].is_none()).collect();
            let Some(first) = open.first() else { return Ok(()) };
            let line = items[*first].line;
            let Some(Temporary { why, retry_after }) = self.post_once(items, &open, answers)?
            else {
                continue;
            };
            if backoff.attempts() == 1 {
                let time = format_duration(self.give_up);
                console::print(format!("waiting, for {time} at most: {why}"));
            }
            if !backoff.pause(retry_after) {
                let time = format_duration(self.give_up);
                bail!(
                    "from line {line} on: not taken within {time} (--give-up), and no later command \
                     was sent: {why}"
                );
            }
        }
    }

    /// Sends the `open` commands once, and fills in `answers`. Returns why some have none yet.
    fn post_once(
        &self,
        items: &[Item],
        open: &[usize],
        answers: &mut [Option<CommandResult>],
    ) -> anyhow::Result<Option<Temporary>> {
        let mut body = Vec::new();
        for at in open {
            body.extend_from_slice(&items[*at].json);
            body.push(b'\n');
        }
        let answer = match self.client.post(&Target::path(&["commands"]), &body) {
            Ok(answer) if answer.is_temporary() => {
                let (why, retry_after) = (answer.error().to_string(), answer.retry_after);
                return Ok(Some(Temporary { why, retry_after }));
            }
            Ok(answer) => answer,
            Err(unanswered) => {
                let waits = self.waits_for_first || self.client.has_answered();
                if !unanswered.is_temporary || !waits {
                    return Err(unanswered.into());
                }
                return Ok(Some(Temporary { why: unanswered.to_string(), retry_after: None }));
            }
        };
        // A refusal of the whole request is an error of its own, not a result of its commands.
        let read: Answers<'_> = answer.read()?;
        if read.results.len() != open.len() {
            bail!(
                "{} answers {} commands with {} results",
                self.client.url(),
                open.len(),
                read.results.len()
            );
        }
        let mut passing = None;
        for (at, result) in open.iter().zip(read.results) {
            if let Ok(Receipt { log, seq }) = serde_json::from_str(result.get()) {
                answers[*at] = Some(CommandResult::Receipt { log, seq, raw: result.to_owned() });
                continue;
            }
            let unclear = |_| anyhow!("an answer is neither a receipt nor a problem: {result}");
            let Refused { problem } = serde_json::from_str(result.get()).map_err(unclear)?;
            let Problem { status, detail } =
                serde_json::from_str(problem.get()).map_err(unclear)?;
            if is_temporary_status(status) {
                let why = || Temporary {
                    why: format!("{detail} ({status})"),
                    retry_after: answer.retry_after,
                };
                passing.get_or_insert_with(why);
            } else {
                answers[*at] = Some(CommandResult::Refused(problem.to_owned()));
            }
        }
        Ok(passing)
    }
}
