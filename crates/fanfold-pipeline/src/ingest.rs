//! The first stage: requests become commands with a seq in their log.
//!
//! Ingest validates requests, groups them by log, and appends each group to its log's slot, in the
//! order of the requests. It answers each request with a receipt or an error. A request that fails
//! before its append took effect was not accepted. One whose append took effect without an answer
//! was accepted: the client sends it again with the same id, and the window recognises it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::host::body::slot;
use fanfold::{Command, LogId, Request, RequestError, Seq, Services, TraceParent};
use foldhash::fast::RandomState;

use crate::at_once::{Pace, at_once};
use crate::backoff::Backoff;
use crate::ports::{
    Admission, Append, AppendError, Commands, Env, NotAdmitted, Token, Unavailable,
};
use crate::telemetry::Telemetry;
use crate::tenants::Tenants;

/// Together under a second, because a client waits for its answer.
const APPEND_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 20, longest_ms: 320 };

/// The ports of ingest.
#[derive(Clone)]
pub struct IngestPorts {
    /// The slots.
    pub commands: Arc<dyn Commands>,
    /// Whether a log takes commands now.
    pub admission: Arc<dyn Admission>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage.
#[derive(Clone)]
pub struct Ingest {
    ports: IngestPorts,
    services: Services,
    appends_at_once: usize,
    telemetry: Option<Arc<Telemetry>>,
}

/// The proof that a command was accepted. Its caller can wait for it in the log or in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The command's log.
    pub log: LogId,
    /// Its seq there.
    pub seq: Seq,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The request is wrong, and never will be accepted.
    #[error(transparent)]
    Invalid(#[from] RequestError),
    /// The host admits no commands now.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The log is frozen.
    #[error("the log `{log}` is closed to commands")]
    Closed {
        /// The log.
        log: LogId,
    },
    /// The host cannot write the commands of the log; none of them was accepted.
    #[error("the commands cannot be written to the slot")]
    Unencodable(#[source] Arc<serde_json::Error>),
    /// Whether it was accepted is unknown: send it again, with the same id.
    #[error(
        "the commands table does not answer; the outcome is unknown, send the command again with the same id"
    )]
    Unavailable(#[source] Unavailable),
}

impl Ingest {
    /// `services` are the services that this host accepts commands for.
    pub fn new(ports: IngestPorts, services: Services) -> Self {
        Self { ports, services, appends_at_once: usize::MAX, telemetry: None }
    }

    /// Appends to at most so many logs at the same time, instead of to all logs of a request. For
    /// hosts that need a connection for each.
    #[must_use]
    pub fn with_appends_at_once(mut self, appends_at_once: usize) -> Self {
        self.appends_at_once = appends_at_once;
        self
    }

    /// Measures into `telemetry`; `None`: nothing.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Option<Arc<Telemetry>>) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Accepts requests, each as JSON. One answer per request, in order.
    pub async fn ingest(&self, requests: &[&[u8]]) -> Vec<Result<Receipt, IngestError>> {
        self.ingest_traced(requests, None).await
    }

    /// As [`Ingest::ingest`]. The commands carry `trace`, if that is recorded.
    pub async fn ingest_traced(
        &self,
        requests: &[&[u8]],
        trace: Option<TraceParent>,
    ) -> Vec<Result<Receipt, IngestError>> {
        // What nothing records is not worth the bytes.
        let trace = trace.filter(TraceParent::is_sampled);
        let began = self.telemetry.as_ref().map(|_| self.ports.env.now());
        let mut answers: Vec<Option<Result<Receipt, IngestError>>> = vec![None; requests.len()];
        let mut groups: Vec<(LogId, Vec<(usize, Command)>)> = Vec::new();
        // Admission is asked once per log, so that no command overtakes a refused one of its log.
        let mut group_of: HashMap<LogId, Result<usize, NotAdmitted>, RandomState> =
            HashMap::with_capacity_and_hasher(requests.len(), RandomState::default());
        for (index, json) in requests.iter().enumerate() {
            let Request { log, mut command } = match Request::parse(json, &self.services) {
                Ok(request) => request,
                Err(error) => {
                    answers[index] = Some(Err(error.into()));
                    continue;
                }
            };
            command.trace = trace;
            let group = group_of.entry(log.clone()).or_insert_with(|| {
                self.ports.admission.admit(&log).map(|()| {
                    groups.push((log.clone(), Vec::with_capacity(1)));
                    groups.len() - 1
                })
            });
            match group {
                Ok(at) => groups[*at].1.push((index, command)),
                Err(refused) => {
                    let error = IngestError::from(refused.clone());
                    self.count_refused(&log, &error, 1);
                    answers[index] = Some(Err(error));
                }
            }
        }
        // By default all at the same time: a provider in this process gathers them into one write.
        let pace = Pace::of(self.appends_at_once.min(groups.len()));
        let appends = groups.into_iter().map(|(log, group)| self.append_group(log, group));
        at_once(pace, appends, |group| {
            if let (Some(telemetry), Some(began)) = (&self.telemetry, began) {
                let accepted = group.iter().filter(|(_, answer)| answer.is_ok()).count();
                telemetry.accepted(began, self.ports.env.now(), accepted as u64);
            }
            for (index, answer) in group {
                answers[index] = Some(answer);
            }
        })
        .await;
        // Unreachable: every request is in a group or already has its error.
        let unanswered = || Unavailable::Failed { hop: "ingest", message: "no answer".to_owned() };
        let answers = answers.into_iter();
        answers.map(|a| a.unwrap_or_else(|| Err(IngestError::Unavailable(unanswered())))).collect()
    }

    /// Accepts one command that was validated before, whatever its origin.
    pub async fn accept(&self, log: &LogId, command: Command) -> Result<Receipt, IngestError> {
        self.ports.admission.admit(log)?;
        let answers = self.append_group(log.clone(), vec![(0, command)]).await;
        // Unreachable: there is an answer for each command.
        let unanswered = || Unavailable::Failed { hop: "ingest", message: "no answer".to_owned() };
        let answer = answers.into_iter().next().map(|(_, answer)| answer);
        answer.unwrap_or_else(|| Err(IngestError::Unavailable(unanswered())))
    }

    /// Appends one log's commands, in as many batches as their size requires, one after another.
    /// The batches behind a failed one are not tried.
    async fn append_group(
        &self,
        log: LogId,
        group: Vec<(usize, Command)>,
    ) -> Vec<(usize, Result<Receipt, IngestError>)> {
        let commands: Vec<&Command> = group.iter().map(|(_, command)| command).collect();
        let bodies = match slot::encode(&commands) {
            Ok(bodies) => bodies,
            Err(e) => {
                let error = IngestError::Unencodable(Arc::new(e));
                self.count_refused(&log, &error, group.len());
                return group.iter().map(|(index, _)| (*index, Err(error.clone()))).collect();
            }
        };
        let mut answers = Vec::with_capacity(group.len());
        let mut failed = None;
        let mut rest = group.as_slice();
        for (n, body) in bodies {
            let (batch, behind) = rest.split_at(n);
            rest = behind;
            let bytes = body.len() as u64;
            let appended = match &failed {
                Some(error) => Err(IngestError::clone(error)),
                None => self.append(&log, n as u64, body.into()).await,
            };
            match appended {
                Ok(last) => {
                    if let Some(tenants) = self.tenants() {
                        tenants.accepted(&log, n as u64, bytes, self.ports.env.now());
                    }
                    let receipts = (last.0 + 1 - n as u64..)
                        .map(|seq| Ok(Receipt { log: log.clone(), seq: Seq(seq) }));
                    answers.extend(batch.iter().map(|(index, _)| *index).zip(receipts));
                }
                Err(error) => {
                    self.count_refused(&log, &error, n);
                    answers.extend(batch.iter().map(|(index, _)| (*index, Err(error.clone()))));
                    failed = Some(error);
                }
            }
        }
        answers
    }

    /// Appends one batch; returns the seq of its last command. All attempts carry one token, so
    /// that ingest recognises an attempt whose answer was lost, and does not append twice. It
    /// reports that nothing was appended only if that is certain for all attempts.
    async fn append(&self, log: &LogId, n: u64, body: Bytes) -> Result<Seq, IngestError> {
        let token = self.token();
        let mut attempt = 1;
        let mut may_have_happened = None;
        loop {
            let append = Append { n, body: body.clone(), at: self.ports.env.now(), token };
            let unavailable = match self.ports.commands.append(log, append).await {
                Ok(last) => return Ok(last),
                Err(AppendError::Refused(slot)) if slot.token == token => return Ok(slot.seq),
                Err(AppendError::Refused(slot)) if slot.closed => {
                    return Err(match may_have_happened {
                        Some(earlier) => IngestError::Unavailable(earlier),
                        None => IngestError::Closed { log: log.clone() },
                    });
                }
                Err(AppendError::Refused(_)) => Unavailable::Failed {
                    hop: "commands table",
                    message: "refused without a reason".to_owned(),
                },
                Err(AppendError::Unavailable(unavailable)) => unavailable,
            };
            let retry =
                unavailable.may_pass() && APPEND_BACKOFF.pause(attempt, &*self.ports.env).await;
            if !retry {
                return Err(IngestError::Unavailable(match may_have_happened {
                    Some(earlier) if unavailable.has_not_happened() => earlier,
                    _ => unavailable,
                }));
            }
            if !unavailable.has_not_happened() {
                may_have_happened = Some(unavailable);
            }
            attempt += 1;
        }
    }

    fn tenants(&self) -> Option<&Tenants> {
        self.telemetry.as_ref()?.tenants()
    }

    fn count_refused(&self, log: &LogId, error: &IngestError, commands: usize) {
        let Some(tenants) = self.tenants() else { return };
        let reason = match error {
            // Such a request names no tenant for sure.
            IngestError::Invalid(_) => return,
            IngestError::NotAdmitted(_) => "not_admitted",
            IngestError::Closed { .. } => "closed",
            IngestError::Unencodable(_) => "unencodable",
            IngestError::Unavailable(_) => "unavailable",
        };
        tenants.refused(log, reason, commands as u64, self.ports.env.now());
    }

    fn token(&self) -> Token {
        let env = &self.ports.env;
        Token(u128::from(env.random()) << 64 | u128::from(env.random()))
    }
}
