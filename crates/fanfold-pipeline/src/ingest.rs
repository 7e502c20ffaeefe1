//! The first stage: requests become commands with a place in their log.
//!
//! Requests are validated, grouped by log, and each group is appended to its log's slot, in the
//! order of the requests. The answer is a receipt or an error per request. What fails before an
//! append took effect was never accepted; what fails after it, without an answer, was: the client
//! sends it again with the same id, and the window knows it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::body::slot;
use fanfold::{Command, LogId, Request, RequestError, Seq, Services};
use foldhash::fast::RandomState;

use crate::at_once::{Pace, at_once};
use crate::backoff::Backoff;
use crate::ports::{
    Admission, Append, AppendError, Commands, Env, NotAdmitted, Token, Unavailable,
};

/// A client waits for its answer: together under a second.
const APPEND_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 20, longest_ms: 320 };

/// The stage.
#[derive(Clone)]
pub struct Ingest {
    commands: Arc<dyn Commands>,
    admission: Arc<dyn Admission>,
    services: Services,
    env: Arc<dyn Env>,
    appends_at_once: usize,
}

/// What the caller of an accepted command gets: it can be awaited, in the log or in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The command's log.
    pub log: LogId,
    /// Its position there.
    pub seq: Seq,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// It never will be: it is wrong.
    #[error(transparent)]
    Invalid(#[from] RequestError),
    /// Not now.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// Its log is frozen.
    #[error("the log `{log}` is closed to commands")]
    Closed {
        /// The log.
        log: LogId,
    },
    /// Whether it was accepted is unknown: send it again, with the same id.
    #[error(
        "the commands table does not answer; the outcome is unknown, send the command again with the same id"
    )]
    Unavailable(#[source] Unavailable),
}

impl Ingest {
    /// `services` are those that this edge knows.
    pub fn new(
        commands: Arc<dyn Commands>,
        admission: Arc<dyn Admission>,
        services: Services,
        env: Arc<dyn Env>,
    ) -> Self {
        Self { commands, admission, services, env, appends_at_once: usize::MAX }
    }

    /// Appends so many logs' commands at the same time, instead of all of a request: for hosts that
    /// need a connection for each.
    #[must_use]
    pub fn with_appends_at_once(mut self, appends_at_once: usize) -> Self {
        self.appends_at_once = appends_at_once;
        self
    }

    /// The services that this edge knows.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Takes requests, each as JSON; answers each, in order.
    pub async fn ingest(&self, requests: &[&[u8]]) -> Vec<Result<Receipt, IngestError>> {
        let mut answers: Vec<Option<Result<Receipt, IngestError>>> = vec![None; requests.len()];
        let mut groups: Vec<(LogId, Vec<(usize, Command)>)> = Vec::new();
        // Admission is asked once for a log: after a command that is refused, none of the same log
        // may be let in.
        let mut group_of: HashMap<LogId, Result<usize, NotAdmitted>, RandomState> =
            HashMap::with_capacity_and_hasher(requests.len(), RandomState::default());
        for (index, json) in requests.iter().enumerate() {
            let Request { log, command } = match Request::parse(json, &self.services) {
                Ok(request) => request,
                Err(error) => {
                    answers[index] = Some(Err(error.into()));
                    continue;
                }
            };
            let group = group_of.entry(log.clone()).or_insert_with(|| {
                self.admission.admit(&log).map(|()| {
                    groups.push((log, Vec::with_capacity(1)));
                    groups.len() - 1
                })
            });
            match group {
                Ok(at) => groups[*at].1.push((index, command)),
                Err(refused) => answers[index] = Some(Err(refused.clone().into())),
            }
        }
        // By default all: a provider in the same process gathers them into one write.
        let pace = Pace::of(self.appends_at_once.min(groups.len()));
        let appends = groups.into_iter().map(|(log, group)| self.append_group(log, group));
        at_once(pace, appends, |group| {
            for (index, answer) in group {
                answers[index] = Some(answer);
            }
        })
        .await;
        // Every request is in one group or has its error; none is left without an answer.
        let unanswered = || Unavailable::Failed { hop: "ingest", message: "no answer".to_owned() };
        let answers = answers.into_iter();
        answers.map(|a| a.unwrap_or_else(|| Err(IngestError::Unavailable(unanswered())))).collect()
    }

    /// Appends one log's commands, in as many batches as their size asks for, one after another:
    /// what stands behind a batch that failed is not tried.
    async fn append_group(
        &self,
        log: LogId,
        group: Vec<(usize, Command)>,
    ) -> Vec<(usize, Result<Receipt, IngestError>)> {
        let commands: Vec<&Command> = group.iter().map(|(_, command)| command).collect();
        let bodies = match slot::encode(&commands) {
            Ok(bodies) => bodies,
            Err(e) => {
                let error = IngestError::Invalid(RequestError::NotJson(e.to_string()));
                return group.iter().map(|(index, _)| (*index, Err(error.clone()))).collect();
            }
        };
        let mut answers = Vec::with_capacity(group.len());
        let mut failed = None;
        let mut rest = group.as_slice();
        for (n, body) in bodies {
            let (batch, behind) = rest.split_at(n);
            rest = behind;
            let appended = match &failed {
                Some(error) => Err(IngestError::clone(error)),
                None => self.append(&log, n as u64, body.into()).await,
            };
            match appended {
                Ok(last) => {
                    let receipts = (last.0 + 1 - n as u64..)
                        .map(|seq| Ok(Receipt { log: log.clone(), seq: Seq(seq) }));
                    answers.extend(batch.iter().map(|(index, _)| *index).zip(receipts));
                }
                Err(error) => {
                    answers.extend(batch.iter().map(|(index, _)| (*index, Err(error.clone()))));
                    failed = Some(error);
                }
            }
        }
        answers
    }

    /// Appends one batch; returns the seq of its last command. All attempts carry one token, so
    /// that an attempt whose answer was lost is recognised and not made twice. That it was not
    /// appended is only said if it holds for all attempts.
    async fn append(&self, log: &LogId, n: u64, body: Bytes) -> Result<Seq, IngestError> {
        let token = self.token();
        let mut attempt = 1;
        let mut may_have_happened = None;
        loop {
            let append = Append { n, body: body.clone(), at: self.env.now(), token };
            let unavailable = match self.commands.append(log, append).await {
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
            let retry = unavailable.may_pass() && APPEND_BACKOFF.pause(attempt, &*self.env).await;
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

    fn token(&self) -> Token {
        Token(u128::from(self.env.random()) << 64 | u128::from(self.env.random()))
    }
}
