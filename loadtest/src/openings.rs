//! What comes before the load: the accounts of all organisations.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use hyper::StatusCode;
use serde::Deserialize;

use crate::drive::Lane;
use crate::exchange::{Attempt, Context, Fate, Patience};
use crate::live::Live;
use crate::measure::Measures;
use crate::samples::PLACES;
use crate::workload::{OPENINGS, Spec, Workload};
use auditor::limits::WAIT_MS_MAX;

/// Requests under way.
const UNDER_WAY_MAX: usize = 8;

/// What came of it.
pub(crate) enum Opened {
    /// All are open, or it was stopped.
    Yes,
    /// The target does not want to.
    Refused(String),
    /// Somebody has used the names of our users before.
    UsedBefore,
}

/// An entry, as far as it says whether its command had come before.
#[derive(Deserialize)]
struct Status {
    status: String,
}

impl Lane {
    /// Opens the accounts of all organisations, and says meanwhile of how many commands it knows
    /// what became; then waits until the views have the last of them.
    pub(crate) fn open_accounts(
        &mut self,
        spec: &Spec,
        patience: Patience,
        commands_per_request: usize,
        live: &Live,
        progress: impl Fn(u64),
    ) -> io::Result<Opened> {
        let Self { evidence, target, runtime, turns, clock, .. } = self;
        let measures = RefCell::new(Measures::new(1.0));
        let (began, clock) = (Instant::now(), *clock);
        let context = Context { target, spec, live, measures: &measures, patience, began, clock };
        let per_request = (commands_per_request / OPENINGS).max(1);
        let is_over = Cell::new(false);
        // What has left comes back, whatever happens: the receipts are to hold all of it.
        let tenants = futures::stream::iter((0..spec.tenants).step_by(per_request))
            .take_while(|_| ready(!is_over.get() && !live.is_stopped()));
        let requests = tenants.map(|first| {
            let last = spec.tenants.min(first + per_request as u32);
            context.exchange(Workload::openings(first..last), context.now())
        });
        runtime.block_on(async {
            let (mut opened, mut last, mut settled) = (Opened::Yes, None, 0);
            let mut answered = std::pin::pin!(requests.buffer_unordered(UNDER_WAY_MAX));
            while let Some(attempt) = answered.next().await {
                for (order, fate) in &attempt.settled {
                    evidence.sent(spec, order, *fate)?;
                }
                settled += attempt.settled.len() as u64;
                progress(settled);
                if last.is_none() && context.was_known_before(&attempt).await {
                    opened = Opened::UsedBefore;
                }
                last = promised(&attempt, spec).or(last);
                if let (Some(refusal), Opened::Yes) = (attempt.refusal, &opened) {
                    opened = Opened::Refused(refusal);
                }
                is_over.set(!matches!(opened, Opened::Yes));
            }
            if let (Some((log, seq)), Opened::Yes) = (&last, &opened) {
                let samples: Vec<_> =
                    (0..PLACES).map(|_| turns.sample(log.clone(), *seq, context.now())).collect();
                let seen = join_all(samples.iter().map(|sample| context.look_for(sample)));
                context.unless_stopped(seen).await;
            }
            evidence.flush()?;
            Ok(opened)
        })
    }
}

/// The log and the place of one of the commands.
fn promised(attempt: &Attempt, spec: &Spec) -> Option<(String, u64)> {
    attempt.settled.iter().rev().find_map(|(order, fate)| match fate {
        Fate::Accepted(seq) => Some((order.log(spec), *seq)),
        Fate::Refused | Fate::Unknown => None,
    })
}

impl Context<'_> {
    /// Whether the target knew commands that were sent only once now.
    async fn was_known_before(&self, attempt: &Attempt) -> bool {
        let Some((log, seq)) = promised(attempt, self.spec).filter(|_| !attempt.was_repeated)
        else {
            return false;
        };
        let wait = self.patience.give_up.min(Duration::from_millis(WAIT_MS_MAX));
        let path = format!("/logs/{log}/{seq}?wait={}", wait.as_millis());
        let answer = self.target.get(&path, wait + self.patience.timeout);
        let Some(Ok(answer)) = self.unless_stopped(answer).await else { return false };
        let entry = || serde_json::from_slice::<Status>(&answer.body);
        answer.status == StatusCode::OK
            && entry().is_ok_and(|entry| ["duplicate", "stale"].contains(&entry.status.as_str()))
    }
}
