//! The bootstrap that all Lambdas share: log, environment, clients, and one invocation after
//! another.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfold::Time;
use fanfold_aws::names::Tables;
use fanfold_aws::{Aws, SystemEnv};
use fanfold_pipeline::panics;
use fanfold_pipeline::ports::{Env, Unavailable};
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
use crate::settings::Environment;

/// What warming up may take of an init phase, of which Lambda gives 10 s, in milliseconds.
const WARM_MS: u64 = 5_000;

/// What a handler is made of.
pub(crate) struct Context<S> {
    pub(crate) aws: Aws,
    pub(crate) tables: Tables,
    pub(crate) env: Arc<dyn Env>,
    /// What the Lambda has read of its environment.
    pub(crate) settings: S,
}

/// Runs a Lambda, until Lambda ends it. `service` is its name in metrics, `read` what it needs of
/// the environment, `make` how its handler is made, all connections included.
pub(crate) fn run<S, H: Handler + 'static>(
    service: &str,
    read: impl FnOnce(&mut Environment<'_>) -> S,
    make: impl AsyncFnOnce(Context<S>) -> H,
) -> ExitCode {
    match start(service, read, make) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "this Lambda does not run");
            ExitCode::FAILURE
        }
    }
}

fn start<S, H: Handler + 'static>(
    service: &str,
    read: impl FnOnce(&mut Environment<'_>) -> S,
    make: impl AsyncFnOnce(Context<S>) -> H,
) -> Result<(), StartError> {
    let get = |name: &str| std::env::var(name).ok();
    let mut environment = Environment::new(&get);
    log(environment.log());
    panics::log_all();
    let tables = environment.tables();
    let settings = read(&mut environment);
    environment.check()?;

    let began = Instant::now();
    // One thread: an invocation has about one processor, and nobody else on it.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let aws = Aws::of_environment();
        aws.deadline.set_in(Duration::from_millis(WARM_MS));
        let of = Dimensions { stack: tables.stack().to_owned(), service: service.to_owned() };
        let context = Context { aws: aws.clone(), tables, env: env.clone(), settings };
        let host = Arc::new(Host { handler: make(context).await, aws, env, of });
        let handle = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
            let host = host.clone();
            async move {
                let until = Time(event.context.deadline);
                let Invoked { answer, line } = host.invoke(event.payload.get(), until).await;
                if let Some(line) = line {
                    // Nobody could be told that stdout is closed.
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

/// One JSON object a line: Lambda's log takes what is on stdout.
fn log(filter: Targets) {
    // Another one, of whoever runs this inside of something else, stays.
    let _ = lines(filter, std::io::stdout).try_init();
}

/// Writes each event as a line of JSON, with its fields beside `timestamp`, `level` and `message`:
/// the metric filters of the template look for the field `alarm` there.
pub fn lines<W>(filter: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
    tracing_subscriber::registry().with(filter).with(lines.with_writer(writer))
}

/// A connection that is not there yet is made by the first call that needs it.
pub(crate) fn report_warm(hop: &str, warmed: Result<(), Unavailable>) {
    if let Err(error) = warmed {
        tracing::warn!(hop, %error, "a client could not be warmed");
    }
}

struct Host<H> {
    handler: H,
    aws: Aws,
    env: Arc<dyn Env>,
    of: Dimensions,
}

/// What has come of an invocation.
struct Invoked {
    answer: Result<Box<RawValue>, InvocationError>,
    /// For the log, from which CloudWatch takes the numbers.
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
        // Of single requests nothing is said: the line would cost more than many of them. What has
        // failed comes again, and its units are spent each time.
        let line = (answer.is_err() || !metrics.is_empty()).then(|| {
            let used = (self.aws.meter.snapshot() - &before).total();
            metrics.of_service(READ_UNITS, used.read);
            metrics.of_service(WRITE_UNITS, used.write + used.conflicts);
            metrics.line(&self.of, self.env.now())
        });
        let answer = answer.and_then(|answer| Ok(RawValue::from_string(answer)?));
        Invoked { answer, line }
    }
}

/// Ends with the budget, whatever the handler does, short of never yielding; and a panic is an
/// error of this invocation, not the end of the process.
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
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(InvocationError::Panicked(said.unwrap_or_default()))
        }
        Err(_) => Err(InvocationError::OutOfTime),
    }
}

#[cfg(test)]
mod tests;
