//! A Lambda: a fixed number of environments, and its invocations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use crate::config::{Config, OnError};
use crate::worker::{Failed, Program, Worker};

/// The most asynchronous invocations of a function that are pending.
const ASYNCHRONOUS_MAX: usize = 1_000;

/// Counters of a function's invocations.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Invocations {
    /// All invocations.
    pub invoked: u64,
    /// Those without an answer, whatever the reason.
    pub failed: u64,
    /// Of these: killed by a planted fault.
    pub killed: u64,
    /// Of these: because their process ended by itself, or did not answer in time.
    pub died: u64,
    /// Asynchronous events that were given up after their retries.
    pub given_up: u64,
    /// Planted kills that are still to come.
    pub kills_left: u64,
}

/// Planted kills that are still to come.
#[derive(Debug, Default)]
struct Kills {
    invocations: u64,
    within: Duration,
}

/// One Lambda.
pub struct Function {
    name: String,
    program: Program,
    on_error: OnError,
    sqs: aws_sdk_sqs::Client,
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
    asynchronous: Semaphore,
    kills: Mutex<Kills>,
    /// Changes to kill all processes.
    kill_now: watch::Sender<u64>,
    counts: Mutex<Invocations>,
    last_id: AtomicU64,
}

impl Function {
    /// The function with this name, without processes. `None`: it is not configured.
    pub fn new(name: &str, config: &Config, sqs: &aws_sdk_sqs::Client) -> Option<Arc<Self>> {
        let function = config.functions.get(name)?;
        Some(Arc::new(Self {
            name: name.to_owned(),
            program: Program::new(name, function, config),
            on_error: function.on_error.clone(),
            sqs: sqs.clone(),
            permits: Semaphore::new(function.workers),
            idle: Mutex::new((0..function.workers).map(|_| Worker::default()).collect()),
            asynchronous: Semaphore::new(ASYNCHRONOUS_MAX),
            kills: Mutex::default(),
            kill_now: watch::Sender::new(0),
            counts: Mutex::default(),
            last_id: AtomicU64::new(0),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its counters.
    pub fn invocations(&self) -> Invocations {
        let kills_left = lock(&self.kills).invocations;
        Invocations { kills_left, ..lock(&self.counts).clone() }
    }

    /// Invokes it once an environment is free: the one that was used last.
    pub async fn invoke(&self, event: Bytes) -> Result<Bytes, Failed> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(Failed::Exited("the host ends".to_owned()));
        };
        // There is one environment for each permit.
        let mut worker = lock(&self.idle).pop().unwrap_or_default();
        let kill_after = self.kill_after();
        let mut kill_now = self.kill_now.subscribe();
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-4000-8000-{id:012x}");
        let invoked = tokio::select! {
            invoked = worker.invoke(&self.program, id, event, kill_after) => Some(invoked),
            _ = kill_now.changed() => None,
        };
        let result = invoked.unwrap_or(Err(Failed::Killed));
        lock(&self.idle).push(worker);
        let mut counts = lock(&self.counts);
        counts.invoked += 1;
        if let Err(failed) = &result {
            counts.failed += 1;
            counts.killed += u64::from(matches!(failed, Failed::Killed));
            counts.died += u64::from(matches!(failed, Failed::Exited(_) | Failed::TimedOut(_)));
            tracing::info!(function = self.name, %failed, "an invocation has no answer");
        }
        result
    }

    /// Queues an asynchronous invocation, as Lambda does. It is retried when it fails, and finally
    /// goes to the destination for failures. Returns when there is room in the queue.
    pub async fn invoke_later(self: &Arc<Self>, event: Value) {
        let function = self.clone();
        // The semaphore is never closed.
        let Ok(permit) = self.asynchronous.acquire().await else { return };
        permit.forget();
        tokio::spawn(async move {
            function.try_for_a_while(event).await;
            function.asynchronous.add_permits(1);
        });
    }

    async fn try_for_a_while(&self, event: Value) {
        let (OnError { retries, retry_ms, age_ms_max, .. }, began) =
            (self.on_error.clone(), Instant::now());
        let body = Bytes::from(event.to_string());
        let mut error = String::new();
        let mut tries = 0;
        for attempt in 0..=retries {
            if attempt > 0 {
                sleep(Duration::from_millis(retry_ms << (attempt - 1).min(10))).await;
            }
            if began.elapsed() > Duration::from_millis(age_ms_max) {
                break;
            }
            tries += 1;
            match self.invoke(body.clone()).await {
                Ok(_) => return,
                Err(failed) => error = failed.to_string(),
            }
        }
        lock(&self.counts).given_up += 1;
        let condition = if tries > retries { "RetriesExhausted" } else { "EventAgeExceeded" };
        let Some(queue) = &self.on_error.destination else { return };
        let letter = json!({
            "version": "1.0",
            "timestamp": jiff::Timestamp::now().to_string(),
            "requestContext": {
                "requestId": "00000000-0000-4000-8000-000000000000",
                "functionArn": format!("{}:$LATEST", self.program.arn),
                "condition": condition,
                "approximateInvokeCount": tries,
            },
            "requestPayload": event,
            "responseContext": {
                "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
            },
            "responsePayload": {"errorMessage": error},
        });
        let send = self.sqs.send_message().queue_url(queue).message_body(letter.to_string());
        if let Err(error) = send.send().await {
            tracing::error!(
                function = self.name,
                ?error,
                "a dead letter could not be sent and is lost"
            );
        }
    }

    /// Kills all its processes, busy and idle. Returns the number of idle ones.
    pub async fn kill(&self) -> u64 {
        self.kill_now.send_modify(|generation| *generation += 1);
        let mut killed = 0;
        for place in 0.. {
            let Some(mut worker) = ({
                let mut idle = lock(&self.idle);
                (place < idle.len()).then(|| std::mem::take(&mut idle[place]))
            }) else {
                break;
            };
            killed += u64::from(worker.kill());
        }
        killed
    }

    /// Kills the processes of the next invocations, each at a random time before `within` has
    /// passed, or when it ends. Their answers are lost.
    pub fn kill_next(&self, invocations: u64, within: Duration) {
        *lock(&self.kills) = Kills { invocations, within };
    }

    fn kill_after(&self) -> Option<Duration> {
        let mut kills = lock(&self.kills);
        kills.invocations = kills.invocations.checked_sub(1)?;
        let micros = kills.within.as_micros().min(u128::from(u64::MAX)) as u64;
        Some(Duration::from_micros(rand::rng().random_range(0..=micros)))
    }
}

/// All functions of a host, by name.
pub type Functions = BTreeMap<String, Arc<Function>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
