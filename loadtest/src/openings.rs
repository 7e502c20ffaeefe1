//! Sets all tenants up, before the load: opens the ledger's accounts, or sends the setup of the
//! workload file.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use hyper::StatusCode;
use serde::Deserialize;

use crate::exchange::{Attempt, Context, FinalState, Timeouts};
use crate::live::Live;
use crate::load_thread::LoadThread;
use crate::measure::Measures;
use crate::workload::{Openings, Spec, WorkloadError};
use auditor::limits::WAIT_MS_MAX;

const UNDER_WAY_MAX: usize = 8;

pub(crate) enum Opened {
    /// All tenants are set up, or the load was stopped.
    Yes,
    /// The target refuses the commands.
    Refused(String),
    /// The target has commands of these users from an earlier run.
    NamesUsedBefore,
    /// A command of the workload file cannot be rendered, or the target refuses it.
    Unusable(WorkloadError),
}

/// The status of an entry, which shows whether its command is a repetition.
#[derive(Deserialize)]
struct Status {
    status: String,
}

impl LoadThread {
    /// Sets all tenants up, and waits until the views show the last of them. Passes
    /// the number of commands with a final answer to `progress`.
    pub(crate) fn open_accounts(
        &mut self,
        spec: &Spec,
        timeouts: Timeouts,
        commands_per_request: usize,
        live: &Live,
        progress: impl Fn(u64),
    ) -> io::Result<Opened> {
        let Self { receipt_lines, target, runtime, sources, clock, .. } = self;
        let measures = RefCell::new(Measures::new(1.0));
        let (began, clock) = (Instant::now(), *clock);
        let context = Context { target, spec, live, measures: &measures, timeouts, began, clock };
        let openings = Openings::new(spec);
        if spec.openings() == 0 {
            return Ok(Opened::Yes);
        }
        let per_request = (commands_per_request / spec.openings()).max(1);
        let is_over = Cell::new(false);
        // Requests under way are awaited in any case: the receipts must hold all that was sent.
        let tenants = futures::stream::iter((0..spec.tenants).step_by(per_request))
            .take_while(|_| ready(!is_over.get() && !live.is_stopped()));
        let requests = tenants.map(|first| {
            let last = spec.tenants.min(first + per_request as u32);
            let (openings, context) = (&openings, &context);
            async move {
                let commands = openings.of(first..last)?;
                // A large setup of one tenant takes several requests.
                let requests = commands.chunks(commands_per_request.max(1)).map(<[_]>::to_vec);
                Ok::<_, WorkloadError>(context.exchange(requests).await)
            }
        });
        runtime.block_on(async {
            let (mut opened, mut last, mut settled) = (Opened::Yes, None, 0);
            let mut answered = std::pin::pin!(requests.buffer_unordered(UNDER_WAY_MAX));
            while let Some(attempt) = answered.next().await {
                let attempt = match attempt {
                    Ok(attempt) => attempt,
                    Err(error) => {
                        opened = Opened::Unusable(error);
                        is_over.set(true);
                        continue;
                    }
                };
                for (command, state) in &attempt.settled {
                    receipt_lines.sent(spec, command, *state)?;
                }
                settled += attempt.settled.len() as u64;
                progress(settled);
                if last.is_none() && context.is_repetition(&attempt).await {
                    opened = Opened::NamesUsedBefore;
                }
                last = last_receipt(&attempt, spec).or(last);
                if let (Some(refusal), Opened::Yes) = (&attempt.refusal, &opened) {
                    let of_file = refused(&attempt, spec, refusal);
                    opened =
                        of_file.map_or_else(|| Opened::Refused(refusal.clone()), Opened::Unusable);
                }
                is_over.set(!matches!(opened, Opened::Yes));
            }
            if let (Some((log, seq)), Opened::Yes) = (&last, &opened) {
                let samples: Vec<_> = (0..sources.count())
                    .map(|_| sources.sample(log.clone(), *seq, context.now()))
                    .collect();
                let seen = join_all(samples.iter().map(|sample| context.await_sample(sample)));
                context.until_stopped(seen).await;
            }
            receipt_lines.flush()?;
            Ok(opened)
        })
    }
}

/// The error for the first refused command, if it is of a workload file.
fn refused(attempt: &Attempt, spec: &Spec, why: &str) -> Option<WorkloadError> {
    let mut refused = attempt.settled.iter().filter(|(_, state)| *state == FinalState::Refused);
    refused.next()?.0.refused(spec, why)
}

/// The log and the seq of one of the commands with a receipt.
fn last_receipt(attempt: &Attempt, spec: &Spec) -> Option<(String, u64)> {
    attempt.settled.iter().rev().find_map(|(command, state)| match state {
        FinalState::Accepted(seq) => Some((command.log(spec), *seq)),
        FinalState::Refused | FinalState::Unknown => None,
    })
}

impl Context<'_> {
    /// Whether commands that were sent once are repetitions for the target.
    async fn is_repetition(&self, attempt: &Attempt) -> bool {
        let Some((log, seq)) = last_receipt(attempt, self.spec).filter(|_| !attempt.was_repeated)
        else {
            return false;
        };
        let wait = self.timeouts.give_up.min(Duration::from_millis(WAIT_MS_MAX));
        let path = format!("/logs/{log}/{seq}?wait={}", wait.as_millis());
        let answer = self.target.get(&path, wait + self.timeouts.timeout);
        let Some(Ok(answer)) = self.until_stopped(answer).await else { return false };
        let entry = || serde_json::from_slice::<Status>(&answer.body);
        answer.status == StatusCode::OK
            && entry().is_ok_and(|entry| ["duplicate", "stale"].contains(&entry.status.as_str()))
    }
}
