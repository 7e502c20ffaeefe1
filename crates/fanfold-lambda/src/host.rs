//! The bootstrap of all Lambdas: it sets up the log, reads the environment variables, makes the
//! clients, and runs one invocation after another.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfold::{Time, with_causes};
use fanfold_aws::names::Tables;
use fanfold_aws::{Aws, SystemEnv};
use fanfold_otel::Otel;
use fanfold_pipeline::panics;
use fanfold_pipeline::ports::{Env, Unavailable};
use fanfold_pipeline::telemetry::Telemetry;
use fanfold_pipeline::traces::Traces;
use futures::FutureExt;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;
use tokio::runtime;
use tokio::time::timeout;
use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::budget::Budget;
use crate::error::{InvocationError, StartError};
use crate::handler::{Handler, Reply};
use crate::metrics::{Dimensions, Metrics, READ_UNITS, WRITE_UNITS};
use crate::settings::EnvVars;

/// How long the calls of the init phase may take, in milliseconds. Source: half of the 10 s that
/// Lambda gives an init phase.
const WARM_MS: u64 = 5_000;

/// How long an invocation waits until its spans are sent, in milliseconds, and at most for half of the time that it has
/// left. Source: our choice; a collector in the same environment or region answers in a few milliseconds, and one that does
/// not must not slow down the stages for long.
const FLUSH_MS: u64 = 1_000;

/// What a Lambda's handler is made of.
pub(crate) struct Context<S> {
    pub(crate) aws: Aws,
    pub(crate) tables: Tables,
    pub(crate) env: Arc<dyn Env>,
    /// Where its stages measure; each invocation's figures are in its metrics.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where requests are traced; `None`: nowhere.
    pub(crate) traces: Option<Arc<dyn Traces>>,
    /// The values that the Lambda has read from its environment variables.
    pub(crate) settings: S,
}

/// Runs a Lambda until its process ends. `service` is its name in metrics, `read` reads its
/// environment variables, and `make` makes its handler with open connections.
pub(crate) fn run<S, H: Handler + 'static>(
    service: &str,
    read: impl FnOnce(&mut EnvVars<'_>) -> S,
    make: impl AsyncFnOnce(Context<S>) -> H,
) -> ExitCode {
    match start(service, read, make) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Logs why the Lambda ends.
pub(crate) fn failed(error: &StartError) -> ExitCode {
    log(Targets::new().with_default(tracing::Level::INFO));
    tracing::error!(error = with_causes(error), "the Lambda ends with an error");
    ExitCode::FAILURE
}

fn start<S, H: Handler + 'static>(
    service: &str,
    read: impl FnOnce(&mut EnvVars<'_>) -> S,
    make: impl AsyncFnOnce(Context<S>) -> H,
) -> Result<(), StartError> {
    let get = |name: &str| std::env::var(name).ok();
    let mut environment = EnvVars::new(&get);
    log(environment.log());
    panics::log_all();
    let tables = environment.tables();
    let settings = read(&mut environment);
    environment.check()?;

    let began = Instant::now();
    // One thread, since an invocation has about one processor for itself.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let aws = Aws::of_environment();
        aws.deadline.set_in(Duration::from_millis(WARM_MS));
        let of = Dimensions { stack: tables.stack().to_owned(), service: service.to_owned() };
        let otel = Otel::of_environment(&format!("{}-{service}", tables.stack()))?;
        let traces = otel.clone().map(|otel| Arc::new(otel) as Arc<dyn Traces>);
        let telemetry = Arc::new(Telemetry::new().with_traces(traces.clone()));
        let context = Context {
            aws: aws.clone(),
            tables,
            env: env.clone(),
            telemetry: telemetry.clone(),
            traces,
            settings,
        };
        let handler = make(context).await;
        let host = Arc::new(Host { handler, aws, env, of, telemetry, otel });
        let handle = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
            let host = host.clone();
            async move {
                let until = Time(event.context.deadline);
                let Invoked { answer, line } = host.invoke(event.payload.get(), until).await;
                if let Some(line) = line {
                    // If stdout is closed, there is no place to report it.
                    let _ = writeln!(std::io::stdout().lock(), "{line}");
                }
                answer
            }
        });
        let runtime = Runtime::new(handle).layer(TracingLayer::new());
        tracing::info!(service, init_ms = began.elapsed().as_millis() as u64, "ready");
        runtime.run().await.map_err(StartError::RuntimeApi)
    })
}

/// Logs to stdout, which Lambda copies into the log group.
fn log(filter: Targets) {
    // If the process has a subscriber already, that one stays.
    let _ = lines(filter, std::io::stdout).try_init();
}

/// A subscriber that writes each event as a line of JSON, with its fields beside `timestamp`, `level`
/// and `message`. The template's metric filters match the field `alarm` there.
pub fn lines<W>(filter: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
    tracing_subscriber::registry().with(filter).with(lines.with_writer(writer))
}

/// Logs a connection that could not be opened in advance. The first call that needs it opens it.
pub(crate) fn report_warm(hop: &str, warmed: Result<(), Unavailable>) {
    if let Err(error) = warmed {
        tracing::warn!(hop, %error, "the Lambda could not open a connection in advance");
    }
}

struct Host<H> {
    handler: H,
    aws: Aws,
    env: Arc<dyn Env>,
    of: Dimensions,
    telemetry: Arc<Telemetry>,
    otel: Option<Otel>,
}

/// The result of an invocation.
struct Invoked {
    answer: Result<Box<RawValue>, InvocationError>,
    /// The log line from which CloudWatch extracts the metrics.
    line: Option<String>,
}

impl<H: Handler> Host<H> {
    async fn invoke(&self, event: &str, until: Time) -> Invoked {
        let now = self.env.now();
        let budget = Budget::of(now, until);
        self.aws.deadline.set_in(Duration::from_millis(budget.calls_end.since_ms(now)));
        let before = self.aws.meter.snapshot();
        let handled = bounded(&self.handler, event, budget, &*self.env).await;
        let (answer, mut metrics) = match handled {
            Ok(Reply { answer, metrics }) => (Ok(answer), metrics),
            Err(error) => (Err(error), Metrics::new()),
        };
        // Single requests of the API get no line, which would cost more than many of them. A failed
        // invocation gets one, since it is retried and spends units each time.
        let line = (answer.is_err() || !metrics.is_empty()).then(|| {
            metrics.of_figures(&self.telemetry.take());
            let used = (self.aws.meter.snapshot() - &before).total();
            metrics.of_service(READ_UNITS, used.read);
            metrics.of_service(WRITE_UNITS, used.write + used.conflicts);
            metrics.line(&self.of, self.env.now())
        });
        let answer = answer.and_then(|answer| Ok(RawValue::from_string(answer)?));
        self.flush(until).await;
        Invoked { answer, line }
    }

    /// Sends the spans of this invocation: the environment may stand still behind it.
    async fn flush(&self, until: Time) {
        let Some(otel) = self.otel.clone() else { return };
        let left = until.since_ms(self.env.now()) / 2;
        let flushed = tokio::task::spawn_blocking(move || otel.flush());
        if timeout(Duration::from_millis(left.min(FLUSH_MS)), flushed).await.is_err() {
            tracing::warn!("the collector does not answer in time: spans may be late, or lost");
        }
    }
}

/// Calls the handler until the budget ends, if the handler yields. A panic becomes an error of this
/// invocation.
async fn bounded(
    handler: &dyn Handler,
    event: &str,
    budget: Budget,
    env: &dyn Env,
) -> Result<Reply, InvocationError> {
    let left = Duration::from_millis(budget.end.since_ms(env.now()));
    let handled = AssertUnwindSafe(handler.handle(event, budget)).catch_unwind();
    match timeout(left, handled).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(InvocationError::Panicked(message.unwrap_or_default()))
        }
        Err(_) => Err(InvocationError::OutOfTime),
    }
}

#[cfg(test)]
mod tests;
