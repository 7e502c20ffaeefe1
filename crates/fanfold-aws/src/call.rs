//! Makes calls of AWS: counts every attempt, bounds its time, and makes none after the deadline.
//!
//! The SDK's own retries are switched off, so that the meter counts every attempt, and so that calls
//! which a stage retries are not retried here, too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tokio::time::{Instant, sleep, timeout};

use crate::Aws;
use crate::error::{Call, CallError};

/// How long one attempt may take by default, in milliseconds. Source: DynamoDB and Kinesis answer
/// within tens of milliseconds, and a request of the API has 30 s for several attempts.
pub const ATTEMPT_MS: u64 = 3_000;

/// When all calls of this environment's invocation end. All clients share it, and each invocation
/// sets it at its start. Without a deadline, only the number of attempts bounds a call.
#[derive(Debug, Clone, Default)]
pub struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    /// Ends all calls after `left`, counted from now.
    pub fn set_in(&self, left: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + left);
    }

    /// The time left; `None` without a deadline.
    pub fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// How often a call is tried, with exponential pauses and full jitter between the attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    attempts_max: u32,
    first_ms: u64,
    longest_ms: u64,
}

impl RetryPolicy {
    /// One attempt, for calls that the stages retry themselves.
    pub(crate) const NONE: Self = Self { attempts_max: 1, first_ms: 0, longest_ms: 0 };

    /// Six attempts, for all other calls. Source: 25 ms is the base of AWS's SDKs for DynamoDB; six
    /// attempts pause for 0.4 s on average, which covers a short fault. Longer ones are left to the
    /// retries of the event sources.
    pub(crate) const BRIEF: Self = Self { attempts_max: 6, first_ms: 25, longest_ms: 1_000 };

    /// Sleeps after the failed attempt number `attempt`, counted from 1. Returns `false`, without a
    /// pause, if no attempt may follow: it was the last one, or the deadline comes first.
    pub(crate) async fn pause(self, attempt: u32, deadline: &Deadline) -> bool {
        if attempt >= self.attempts_max {
            return false;
        }
        let doubled = self.first_ms.saturating_mul(1 << (attempt - 1).min(20));
        let pause_ms = rand::random_range(0..=doubled.min(self.longest_ms));
        let pause = Duration::from_millis(pause_ms);
        if deadline.left().is_some_and(|left| left <= pause) {
            return false;
        }
        sleep(pause).await;
        true
    }
}

impl Aws {
    /// Makes a call. `send` sends the request, and is called for each attempt.
    ///
    /// If any attempt may have had an effect, so may the call, whatever the last attempt returned:
    /// then the error is that of the earlier attempt.
    pub(crate) async fn call<T, E, F>(
        &self,
        call: Call,
        retries: RetryPolicy,
        send: impl Fn() -> F + Send,
    ) -> Result<T, CallError<E>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E>>> + Send,
    {
        let mut attempt = 1;
        let mut may_have_happened = None;
        loop {
            let error = match self.attempt(&call, send()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tracing::debug!(attempt, %error, "a call failed");
            match error {
                CallError::Conflict { .. } => {
                    self.meter.conflicted(&call.target);
                    return Err(error);
                }
                CallError::Refused { .. } => {
                    // No stage retries it, so this logs one line per call.
                    tracing::error!(alarm = "refused", %error, "AWS refuses the call: an operator must act");
                    return Err(error);
                }
                _ => {}
            }
            if !retries.pause(attempt, &self.deadline).await {
                return Err(match may_have_happened {
                    Some(earlier) if error.has_not_happened() => earlier,
                    _ => error,
                });
            }
            if !error.has_not_happened() {
                may_have_happened = Some(error);
            }
            attempt += 1;
        }
    }

    async fn attempt<T, E>(
        &self,
        call: &Call,
        sent: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CallError<E>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let left = self.deadline.left().unwrap_or(Duration::MAX);
        if left.is_zero() {
            return Err(CallError::TimedOut { call: call.clone() });
        }
        self.meter.called(call.operation);
        match timeout(self.attempt_timeout.min(left), sent).await {
            Ok(answer) => answer.map_err(|error| CallError::of(call.clone(), error)),
            Err(_) => Err(CallError::TimedOut { call: call.clone() }),
        }
    }
}
