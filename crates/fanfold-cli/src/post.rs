//! `POST /commands`, until each command of a batch has its answer.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use fanfold::LogId;
use humantime::format_duration;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::batches::Item;
use crate::client::{Client, Target, status_passes};
use crate::console;
use crate::retry::Backoff;

/// What the server said of a command for good.
pub enum Said {
    /// It has its place.
    Receipt {
        /// The log.
        log: LogId,
        /// Its place there.
        seq: u64,
        /// The receipt, as it came.
        raw: Box<RawValue>,
    },
    /// It is refused, with this problem.
    Refused(Box<RawValue>),
}

/// Sends batches.
pub struct Post {
    client: Client,
    give_up: Duration,
    /// Whether a server that has never answered is waited for.
    waits_for_first: bool,
}

/// The answer to a batch.
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

/// Why something has no answer for good yet.
struct Passing {
    why: String,
    /// What `Retry-After` asks for.
    asked: Option<Duration>,
}

impl Post {
    /// Tries each batch again until `give_up` has passed.
    pub fn new(client: Client, give_up: Duration, waits_for_first: bool) -> Self {
        Self { client, give_up, waits_for_first }
    }

    /// Asks the server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// When something that begins now is given up.
    pub fn until(&self) -> Instant {
        let now = Instant::now();
        // A time that no clock reaches is none: a year is as good.
        now.checked_add(self.give_up).unwrap_or(now + Duration::from_secs(365 * 86_400))
    }

    /// Sends the commands until each has its answer; those that cannot be taken now again, in
    /// place and with the same ids. An error: not all have, and nothing may be sent behind them.
    pub fn batch(&self, items: &[Item], answers: &mut [Option<Said>]) -> anyhow::Result<()> {
        let mut backoff = Backoff::within(self.give_up);
        loop {
            let open: Vec<usize> = (0..items.len()).filter(|at| answers[*at].is_none()).collect();
            let Some(first) = open.first() else { return Ok(()) };
            let line = items[*first].line;
            let Some(Passing { why, asked }) = self.once(items, &open, answers)? else { continue };
            if backoff.attempts() == 1 {
                let time = format_duration(self.give_up);
                console::tell(format!("waiting, for {time} at most: {why}"));
            }
            if !backoff.pause(asked) {
                let time = format_duration(self.give_up);
                bail!(
                    "from line {line} on: not taken within {time} (--give-up), and nothing behind \
                     these commands was sent: {why}"
                );
            }
        }
    }

    /// Sends the open ones once, and fills in their answers; why some have none yet.
    fn once(
        &self,
        items: &[Item],
        open: &[usize],
        answers: &mut [Option<Said>],
    ) -> anyhow::Result<Option<Passing>> {
        let mut body = Vec::new();
        for at in open {
            body.extend_from_slice(&items[*at].json);
            body.push(b'\n');
        }
        let answer = match self.client.post(&Target::path(&["commands"]), &body) {
            Ok(answer) if answer.passes() => {
                let (why, asked) = (answer.error().to_string(), answer.retry_after);
                return Ok(Some(Passing { why, asked }));
            }
            Ok(answer) => answer,
            Err(unanswered) => {
                let waits = self.waits_for_first || self.client.has_answered();
                if !unanswered.passes || !waits {
                    return Err(unanswered.into());
                }
                return Ok(Some(Passing { why: unanswered.to_string(), asked: None }));
            }
        };
        // What refuses a whole request is not about one of its commands.
        let read: Answers<'_> = answer.read()?;
        if read.results.len() != open.len() {
            bail!("{} commands got {} answers", open.len(), read.results.len());
        }
        let mut passing = None;
        for (at, result) in open.iter().zip(read.results) {
            if let Ok(Receipt { log, seq }) = serde_json::from_str(result.get()) {
                answers[*at] = Some(Said::Receipt { log, seq, raw: result.to_owned() });
                continue;
            }
            let unclear = |_| anyhow!("an answer is neither a receipt nor a problem: {result}");
            let Refused { problem } = serde_json::from_str(result.get()).map_err(unclear)?;
            let Problem { status, detail } =
                serde_json::from_str(problem.get()).map_err(unclear)?;
            if status_passes(status) {
                let why =
                    || Passing { why: format!("{detail} ({status})"), asked: answer.retry_after };
                passing.get_or_insert_with(why);
            } else {
                answers[*at] = Some(Said::Refused(problem.to_owned()));
            }
        }
        Ok(passing)
    }
}
