//! `fanfold up`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fanfold::{App, Example, Services};
use fanfold_embedded::ShardState;
use fanfold_embedded::{Config, Engine, TransitConfig};
use fanfold_http::limits::{STREAM_MS_MAX, WAIT_MS_MAX};
use fanfold_http::{Api, Described, Metrics, Streams, router_with};
use fanfold_otel::Otel;
use fanfold_pipeline::panics;
use fanfold_pipeline::traces::Traces;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin;
use crate::chaos::{self, ChaosRoutes};
use crate::client::Target;
use crate::gauges::{Gauges, HostGauges};
use crate::host::{BoundAddress, HostName, Limits};
use crate::logging;
use crate::readiness;

/// The arguments.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The address to listen on; port 0 means any free port. There is no authentication: every
    /// client that reaches this address may do everything. On loopback, only requests for
    /// `localhost` and loopback addresses are served. On other addresses, requests for any host
    /// name are served, unless --host names those that are right; without it a web page can make a
    /// browser send requests here under the page's own name (DNS rebinding).
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A name of this host, such as the one in requests that a proxy passes on. Can be repeated.
    #[arg(long, value_name = "NAME")]
    host: Vec<HostName>,
    #[command(flatten)]
    limits: LimitArgs,
    /// The folder that keeps everything; created if it does not exist. Accepted commands survive a
    /// crash.
    #[arg(long, default_value = ".fanfold", value_name = "FOLDER")]
    data: PathBuf,
    /// Take over a folder that an app of another name has made, such as this one before it was renamed.
    #[arg(long)]
    adopt: bool,
    /// Keep everything in memory instead; it is lost when the process ends.
    #[arg(long, conflicts_with = "data")]
    in_memory: bool,
    /// The number of shards of the command stream, each of which is processed in parallel. A folder
    /// that has shards already keeps those; `fanfold shards` changes them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: u16,
    /// Let operators break it on purpose, for development: see `fanfold chaos`.
    #[arg(long)]
    chaos: bool,
    /// What to log to standard error, such as `info` or `fanfold_pipeline=debug,warn`.
    // Without this parser, clap uses the lenient conversion, which drops wrong directives.
    #[arg(
        long,
        env = "FANFOLD_LOG",
        default_value = "warn",
        value_name = "FILTER",
        value_parser = EnvFilter::from_str
    )]
    log: EnvFilter,
}

/// The host's limits, which tests make small.
#[derive(Debug, Args)]
struct LimitArgs {
    /// The most connections; by default as many as the limit of open files allows.
    #[arg(long, hide = true)]
    connections_max: Option<usize>,
    #[arg(long, hide = true)]
    body_bytes_max: Option<usize>,
    #[arg(long, hide = true)]
    head_ms: Option<u64>,
    #[arg(long, hide = true)]
    body_ms: Option<u64>,
    #[arg(long, hide = true)]
    idle_ms: Option<u64>,
    #[arg(long, hide = true)]
    write_ms: Option<u64>,
    #[arg(long, hide = true)]
    grace_ms: Option<u64>,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        let base = Limits::of_process();
        let or = |ms: Option<u64>, base| ms.map_or(base, Duration::from_millis);
        Limits {
            connections_max: self.connections_max.unwrap_or(base.connections_max),
            body_bytes_max: self.body_bytes_max.unwrap_or(base.body_bytes_max),
            head: or(self.head_ms, base.head),
            body: or(self.body_ms, base.body),
            idle: or(self.idle_ms, base.idle),
            write: or(self.write_ms, base.write),
            grace: or(self.grace_ms, base.grace),
        }
    }
}

impl Up {
    /// Runs until a signal; then refuses new commands, and finishes those that it has accepted.
    pub(crate) fn run(self, app: App) -> anyhow::Result<ExitCode> {
        let repeats = logging::init(self.log);
        panics::log_those_caught();
        let otel = Otel::of_environment(app.name())?;
        let traces = otel.clone().map(|otel| Arc::new(otel) as Arc<dyn Traces>);
        let config = Config {
            adopt: self.adopt,
            chaos: self.chaos,
            traces,
            transit: TransitConfig { shards: self.shards.into(), ..TransitConfig::default() },
            ..Config::of(&app)
        };
        if !app.has_services() {
            bail!(
                "the app `{}` has no service, so `up` has nothing to host: its views are hosted \
                 beside the app that has their services",
                app.name()
            );
        }
        let example = app.example().map(|example| Greeting::new(example, app.services()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let data = (!self.in_memory).then_some(self.data);
        let listens =
            ListenConfig { address: self.listen, names: self.host, limits: self.limits.limits() };
        runtime.spawn(repeats.clone().run());
        let described = Described::new(app);
        let ended = runtime.block_on(host(listens, config, described, example.flatten(), data));
        // A task that never returns, such as a service's endless loop, must not block the exit.
        runtime.shutdown_background();
        if let Some(otel) = otel {
            otel.shut_down();
        }
        repeats.report();
        ended
    }
}

/// What a new user may try.
struct Greeting {
    command: &'static str,
    /// The path of the rows.
    rows: String,
}

impl Greeting {
    fn new(Example { command, view }: Example, services: &Services) -> Option<Self> {
        let log = Example { command, view }.log(services)?;
        let target = Target::path(&["views", view, log.service(), log.partition()]);
        Some(Self { command, rows: target.as_str().to_owned() })
    }
}

/// Where and how to serve the API.
struct ListenConfig {
    address: SocketAddr,
    names: Vec<HostName>,
    limits: Limits,
}

async fn host(
    listens: ListenConfig,
    config: Config,
    described: Described,
    example: Option<Greeting>,
    data: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    // Binds before it opens the folder, since an opened folder would have to be closed again.
    let bound = BoundAddress::bind(listens.address).await?;
    // Answers during recovery, too, which may be long: that the process lives, and is not ready.
    let host = bound.serve(readiness::recovering(), &listens.names, listens.limits);
    let views = config.views.iter().map(|view| view.name().to_owned()).collect();
    let traces = config.traces.clone();
    let engine = match &data {
        Some(folder) => Engine::open(config, folder)?,
        None => Engine::start(config)?,
    };
    // Serves the API only after recovery, so that readers never see less than before a crash.
    let recovered = tokio::select! {
        recovered = engine.recovered() => recovered,
        () = signals.next() => {
            engine.shutdown().await;
            return Ok(ExitCode::SUCCESS);
        }
        lost = engine.lost() => return Err(lost.into()),
    };
    if !recovered {
        tracing::warn!(
            "recovery has not yet processed all commands that were accepted before the start"
        );
    }
    let shards = engine.shards().iter().filter(|shard| shard.state == ShardState::Open).count();
    let api = Api {
        ingest: engine.ingest().clone(),
        reads: engine.reads().clone(),
        metrics: Metrics::new(),
        wait_ms_max: WAIT_MS_MAX,
        streams: Streams::Live { ms_max: STREAM_MS_MAX },
        described,
        traces,
    };
    let gauges = Gauges(engine.monitor().clone());
    let metrics = api.metrics.clone();
    metrics.register(|registry| registry.register_collector(Box::new(gauges)));
    let (operate, doctor) = (engine.operate().clone(), engine.doctor().clone());
    let operators = fanfold_http::operators(operate, doctor);
    let operators = operators.merge(admin::routes(engine.command_shards().clone()));
    let mut operators = operators.merge(admin::backups::routes(engine.backups().cloned()));
    if let Some(chaos) = engine.chaos().cloned() {
        tracing::warn!("operators may break this process on purpose (--chaos)");
        let shards = engine.command_shards().clone();
        operators = operators.merge(chaos::routes(ChaosRoutes { chaos, shards, views }));
    }
    let monitor = engine.monitor().clone();
    let tenants = fanfold_http::tenants(move |limit| monitor.busiest(limit));
    let operators = operators.merge(tenants);
    let operators = operators.merge(fanfold_http::doctor_host(engine.host_checks()));
    let operators = fanfold_http::with_timeline(operators, engine.timeline());
    let operators = operators.merge(fanfold_http::console());
    let gauges = HostGauges(host.usage());
    metrics.register(|registry| registry.register_collector(Box::new(gauges)));
    let api = router_with(api, operators);
    host.change(api.clone());
    if !listens.address.ip().is_loopback() {
        tracing::warn!(
            listen = %listens.address,
            "other machines may reach this address, and there is no authentication"
        );
    }
    // A closed standard output, or a full disk below it, must not end the host.
    let _ = greet(host.address(), shards, data.as_deref(), example);

    tokio::select! {
        () = signals.next() => {}
        lost = engine.lost() => {
            host.drain().await;
            return Err(lost.into());
        }
    }
    host.change(readiness::stopping(api));
    let drained = async {
        host.drain().await;
        engine.shutdown().await
    };
    tokio::select! {
        drained = drained => match drained {
            true => Ok(ExitCode::SUCCESS),
            false => bail!(
                "stopped before all accepted commands were processed: the next start processes them, \
                 unless they were in memory"
            ),
        },
        () = signals.next() => bail!("stopped before all requests were answered, because of a second signal"),
    }
}

fn greet(
    address: SocketAddr,
    shards: usize,
    data: Option<&Path>,
    example: Option<Greeting>,
) -> io::Result<()> {
    let url = format!("http://{address}");
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "Fanfold listens on {url}, with {shards} shards.")?;
    let keeps = match data {
        Some(folder) => format!("in the folder {}", folder.display()),
        None => "in memory, which is lost when it ends".to_owned(),
    };
    write!(stdout, "It keeps everything {keeps}. Its console is {url}/console. Ctrl-C ends it.")?;
    if let Some(Greeting { command, rows }) = example {
        // In a shell, a quote within single quotes must be closed, escaped and opened again.
        let command = command.replace('\'', r"'\''");
        writeln!(stdout, " Try:\n\n  curl -XPOST '{url}/command' -d '{command}'")?;
        write!(stdout, "  curl '{url}{rows}?seq=1&wait=5000'")?;
    }
    writeln!(stdout, "\n")?;
    stdout.flush()
}

/// SIGINT (Ctrl-C) and SIGTERM (service managers).
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
