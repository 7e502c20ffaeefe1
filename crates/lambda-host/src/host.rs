//! Starts all parts of a host.

use std::time::Duration;

use anyhow::Context;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, Source};
use crate::control::{self, Controlled};
use crate::function::{Function, Functions};
use crate::mapping::dynamo::TableStream;
use crate::mapping::kinesis::KinesisStream;
use crate::mapping::queue::{self, Reader};
use crate::mapping::stream::Mapping;
use crate::mapping::{Clock, Handle, Mappings};
use crate::{event, front};

/// Runs a host until one of its parts ends, which is an error.
pub async fn run(config: Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.logs)?;
    let sdk = sdk(&config);
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let mut functions = Functions::new();
    for name in config.functions.keys() {
        if let Some(function) = Function::new(name, &config, &sqs) {
            functions.insert(name.clone(), function);
        }
    }
    let function = |name: &str| {
        functions.get(name).cloned().with_context(|| format!("there is no function {name}"))
    };
    let mut mappings = Mappings::new();
    let mut parts: FuturesUnordered<BoxFuture<'static, anyhow::Result<()>>> =
        FuturesUnordered::new();
    let clock = Clock::start();
    for (name, stream) in &config.streams {
        let (function, handle) = (function(name)?, Handle::default());
        mappings.insert(name.clone(), handle.clone());
        let stream = stream.clone();
        let run: BoxFuture<'static, ()> = match &stream.source {
            Source::Table(table) => {
                let client = aws_sdk_dynamodbstreams::Client::new(&sdk);
                let source = TableStream::new(client, table, &config.region);
                let mapping = Mapping { source, function, config: stream, handle, clock };
                Box::pin(std::sync::Arc::new(mapping).run())
            }
            Source::Kinesis(name) => {
                let client = aws_sdk_kinesis::Client::new(&sdk);
                let source = KinesisStream::new(client, name, &config.region, &config.account);
                let mapping = Mapping { source, function, config: stream, handle, clock };
                Box::pin(std::sync::Arc::new(mapping).run())
            }
        };
        parts.push(Box::pin(until_panic(run)));
    }
    let reader = |name: &str, url: &str, poll_ms: u64, handle: &Handle| {
        anyhow::Ok(Reader {
            client: sqs.clone(),
            url: url.to_owned(),
            poll: Duration::from_millis(poll_ms),
            function: function(name)?,
            handle: handle.clone(),
        })
    };
    for (name, queue) in &config.queues {
        let handle = Handle::default();
        let reader = reader(name, &queue.url, queue.poll_ms, &handle)?;
        mappings.insert(name.clone(), handle);
        let (region, account) = (config.region.clone(), config.account.clone());
        parts.push(Box::pin(until_panic(queue::map(reader, queue.clone(), region, account))));
    }
    for (name, subscription) in &config.subscriptions {
        let handle = Handle::default();
        let reader = reader(name, &subscription.url, subscription.poll_ms, &handle)?;
        mappings.insert(name.clone(), handle);
        parts.push(Box::pin(until_panic(queue::notify(reader))));
    }
    for (name, every_ms) in &config.schedules {
        let (function, every_ms) = (function(name)?, *every_ms);
        let (region, account) = (config.region.clone(), config.account.clone());
        parts.push(Box::pin(until_panic(async move {
            let mut ticks = interval(Duration::from_millis(every_ms.max(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick is immediate.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let now = jiff::Timestamp::now();
                let event = event::of_schedule(function.name(), &region, &account, now);
                function.invoke_later(event).await;
            }
        })));
    }
    if let Some(at) = &config.front {
        let listener =
            TcpListener::bind(at.listen).await.context("the HTTP front cannot listen")?;
        let by_path = |(path, name): (&String, &String)| Ok((path.clone(), function(name)?));
        let by_path = at.functions.iter().map(by_path).collect::<anyhow::Result<_>>()?;
        let account = config.account.clone();
        parts.push(Box::pin(async move {
            front::serve(listener, by_path, account).await.context("the HTTP front has ended")
        }));
    }
    // Last, so that everything that it controls exists.
    let listener =
        TcpListener::bind(config.control).await.context("the control port cannot listen")?;
    let controlled = Controlled { functions: functions.clone(), mappings };
    parts.push(Box::pin(async move {
        control::serve(listener, controlled).await.context("the control port has ended")
    }));
    match parts.next().await {
        Some(Err(error)) => Err(error),
        Some(Ok(())) | None => anyhow::bail!("a part of the host has ended"),
    }
}

/// Runs a part that never ends unless it panics.
async fn until_panic(part: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    tokio::spawn(part).await.context("a part of the host has panicked")
}

fn sdk(config: &Config) -> SdkConfig {
    // An emulator accepts any credentials.
    let credentials = Credentials::new("test", "test", None, None, "lambda-host");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(Region::new(config.region.clone()))
        .endpoint_url(&config.endpoint)
        .build()
}
