//! The one way to make a call: every attempt counted, bounded in time, and none after the deadline.
//!
//! The SDK's own retries are switched off, so that the meter sees every attempt, and so that none
//! is made behind the back of a stage that retries by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tokio::time::{Instant, sleep, timeout};

use crate::Aws;
use crate::error::{Call, CallError};

/// How long one attempt may take, in milliseconds, unless told otherwise. DynamoDB and Kinesis
/// answer within tens; an API call has 30 s for several attempts.
pub const ATTEMPT_MS: u64 = 3_000;

/// When this environment's invocation is over: one cell for all clients, set at each invocation's
/// start. Without a deadline, calls are bounded by their attempts alone.
#[derive(Debug, Clone, Default)]
pub struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    /// From now on, no call goes on for longer than this.
    pub fn set_in(&self, left: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + left);
    }

    /// There is no deadline any more.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The time left; `None` without a deadline.
    pub fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// How often a call is tried, and how long is waited in between: exponential, with full jitter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    attempts_max: u32,
    first_ms: u64,
    longest_ms: u64,
}

impl Tries {
    /// For what the stages retry by themselves: no retry on a retry.
    pub(crate) const ONE: Self = Self { attempts_max: 1, first_ms: 0, longest_ms: 0 };

    /// For all else. 25 ms is the base that AWS's SDKs use for DynamoDB, and six attempts wait
    /// for 0.4 s on average: a hiccup, not an outage, which the stages' own retries are for.
    pub(crate) const SOME: Self = Self { attempts_max: 6, first_ms: 25, longest_ms: 1_000 };

    /// Waits after the failed attempt number `attempt` (from 1 on). `false`: no other may follow,
    /// because of its number, or because the deadline comes first.
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
    /// Makes a call. `send` sends it once, and is asked again for each attempt.
    ///
    /// That it has not happened is only said if it holds for all attempts.
    pub(crate) async fn call<T, E, F>(
        &self,
        call: Call,
        tries: Tries,
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
                    // No stage repeats it: one line a call, however often the batch comes again.
                    tracing::error!(alarm = "refused", %error);
                    return Err(error);
                }
                _ => {}
            }
            if !tries.pause(attempt, &self.deadline).await {
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
