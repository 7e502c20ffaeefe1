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
use fanfold_pipeline::ports::{Env, Unavailable};
use futures::FutureExt;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;
use tokio::runtime;
use tokio::time::timeout;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::budget::Budget;
use crate::error::{InvocationError, StartError};
use crate::handler::{Handler, Reply};
use crate::metrics::{Dimensions, READ_UNITS, WRITE_UNITS};
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
    let tables = environment.tables();
    let settings = read(&mut environment);
    environment.check()?;

    let began = Instant::now();
    // One thread: an invocation has about one processor, and nobody else on it.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let aws = Aws::load().await;
        aws.deadline.set_in(Duration::from_millis(WARM_MS));
        let of = Dimensions { stack: tables.stack().to_owned(), service: service.to_owned() };
        let context = Context { aws: aws.clone(), tables, env: env.clone(), settings };
        let host = Arc::new(Host { handler: make(context).await, aws, env, of });
        let handle = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
            let host = host.clone();
            async move { host.invoke(event.payload.get(), Time(event.context.deadline)).await }
        });
        let runtime = Runtime::new(handle).layer(TracingLayer::new());
        tracing::info!(service, init_ms = began.elapsed().as_millis() as u64, "ready");
        runtime.run().await.map_err(StartError::RuntimeApi)
    })
}

/// One JSON object a line: Lambda's log takes what is on stdout.
fn log(filter: Targets) {
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
    // Another one, of whoever runs this inside of something else, stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
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

impl<H: Handler> Host<H> {
    async fn invoke(&self, event: &str, until: Time) -> Result<Box<RawValue>, InvocationError> {
        let now = self.env.now();
        let budget = Budget::of(now, until);
        self.aws.deadline.set_in(Duration::from_millis(budget.end.since_ms(now)));
        let before = self.aws.meter.snapshot();
        let Reply { answer, mut metrics } =
            bounded(&self.handler, event, budget, &*self.env).await?;
        // Of single requests nothing is said: the line would cost more than many of them.
        if !metrics.is_empty() {
            let used = (self.aws.meter.snapshot() - &before).total();
            metrics.of_service(READ_UNITS, used.read);
            metrics.of_service(WRITE_UNITS, used.write + used.conflicts);
            let line = metrics.line(&self.of, self.env.now());
            // Nobody could be told that stdout is closed.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
        Ok(RawValue::from_string(answer)?)
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
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::metrics::Metrics;

    enum Does {
        Answers,
        Panics,
        Waits,
        Fails,
    }

    #[async_trait]
    impl Handler for Does {
        async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
            match self {
                Self::Answers => Reply::new(&event, Metrics::new()),
                Self::Panics => panic!("a test of what happens then"),
                Self::Waits => {
                    SystemEnv.sleep(60_000).await;
                    Reply::new(&budget.end.0, Metrics::new())
                }
                Self::Fails => Err(InvocationError::NotApplied { failed: 1, messages: 2 }),
            }
        }
    }

    #[test]
    fn an_invocation_ends_in_time_and_without_the_process() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        for (does, expected) in [
            (Does::Answers, Ok("\"{}\"")),
            (Does::Panics, Err("the handler panicked: a test of what happens then")),
            (Does::Waits, Err("the invocation's time is over")),
            (Does::Fails, Err("1 of 2 messages were not applied")),
        ] {
            let budget = Budget::of(SystemEnv.now(), SystemEnv.now().plus_ms(100));
            let handled = runtime.block_on(bounded(&does, "{}", budget, &SystemEnv));
            let handled = handled.map(|reply| reply.answer).map_err(|error| error.to_string());
            assert_eq!(handled.as_deref().map_err(String::as_str), expected);
        }
    }
}
