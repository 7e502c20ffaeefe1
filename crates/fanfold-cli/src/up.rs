//! `fanfold up`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fanfold::{Services, Views};
use fanfold_embedded::shards::ShardState;
use fanfold_embedded::{Config, Engine, TransitConfig};
use fanfold_http::limits::WAIT_MS_MAX;
use fanfold_http::{Api, Metrics, router_with};
use fanfold_pipeline::panics;
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin;
use crate::gauges::{Gauges, HostGauges};
use crate::host::{Bound, HostName, Limits};
use crate::logging;

/// The arguments.
#[derive(Debug, Args)]
pub struct Up {
    /// Where to listen; port 0 is any that is free. There is no authentication: whoever reaches
    /// this address may do everything. On loopback, requests for another host than `localhost` or
    /// its addresses are refused; elsewhere the names of this host are not known, and all are
    /// served: give them with `--host`, so that web pages cannot have requests sent here under names
    /// of their own.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A name of this host, as in the requests that a proxy passes on. May be given several times.
    #[arg(long, value_name = "NAME")]
    host: Vec<HostName>,
    #[command(flatten)]
    bounds: Bounds,
    /// Where everything is kept; made if it is not there. What was accepted survives a crash.
    #[arg(long, default_value = ".fanfold", value_name = "FOLDER")]
    data: PathBuf,
    /// Keep everything in memory instead: it is gone when this ends.
    #[arg(long, conflicts_with = "data")]
    in_memory: bool,
    /// Shards of the command stream: how many batches of logs are worked on at the same time. A
    /// folder that has shards keeps those: see `fanfold shards`, which changes them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: u16,
    /// What to log to standard error, as `info` or `fanfold_pipeline=debug,warn`.
    // Without the parser, clap takes the lenient conversion, which drops what it does not know.
    #[arg(
        long,
        env = "FANFOLD_LOG",
        default_value = "warn",
        value_name = "FILTER",
        value_parser = EnvFilter::from_str
    )]
    log: EnvFilter,
}

/// Bounds of the HTTP host that tests make small.
#[derive(Debug, Args)]
struct Bounds {
    /// Connections at most; without it, as many as the limit of open files has room for.
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

impl Bounds {
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
    /// Runs until a signal stops it; then takes nothing more, and finishes what it has accepted.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let repeats = logging::begin(self.log);
        panics::log_those_caught();
        let config = Config {
            services: Services::new().with::<Ledger>(),
            views: Views::new().with::<Balances>().with::<Statement>().with::<Totals>(),
            transit: TransitConfig { shards: self.shards.into(), ..TransitConfig::default() },
            ..Config::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        let data = (!self.in_memory).then_some(self.data);
        let listens =
            Listens { address: self.listen, names: self.host, limits: self.bounds.limits() };
        runtime.spawn(repeats.clone().tell());
        let ended = runtime.block_on(host(listens, config, data));
        // What does not come back by itself, a service's endless loop say, must not hold the exit.
        runtime.shutdown_background();
        repeats.tell_now();
        ended
    }
}

/// Where and how the API is served.
struct Listens {
    address: SocketAddr,
    names: Vec<HostName>,
    limits: Limits,
}

async fn host(listens: Listens, config: Config, data: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    // First what may be taken: a folder that was opened has to be closed again.
    let bound = Bound::take(listens.address).await?;
    let engine = match &data {
        Some(folder) => Engine::open(config, folder)?,
        None => Engine::start(config)?,
    };
    // So that nobody sees less than before a crash.
    let recovered = tokio::select! {
        recovered = engine.recovered() => recovered,
        () = signals.next() => {
            engine.shutdown().await;
            return Ok(ExitCode::SUCCESS);
        }
        lost = engine.lost() => return Err(lost.into()),
    };
    if !recovered {
        tracing::warn!("not everything that was accepted before has been processed yet");
    }
    let shards = engine.shards().iter().filter(|shard| shard.state == ShardState::Open).count();
    let api = Api {
        ingest: engine.ingest().clone(),
        reads: engine.reads().clone(),
        metrics: Metrics::new(),
        wait_ms_max: WAIT_MS_MAX,
    };
    let gauges = Gauges(engine.monitor().clone());
    let metrics = api.metrics.clone();
    metrics.register(|registry| registry.register_collector(Box::new(gauges)));
    let api = router_with(api, admin::routes(engine.command_shards().clone()));
    let host = bound.serve(api, &listens.names, listens.limits);
    let gauges = HostGauges(host.usage());
    metrics.register(|registry| registry.register_collector(Box::new(gauges)));
    if !listens.address.ip().is_loopback() {
        tracing::warn!(listen = %listens.address, "others may reach this address, and there is no authentication");
    }
    // Somebody may have closed standard output, or no disk may be left for it: that ends no host.
    let _ = greet(host.address(), shards, data.as_deref());

    tokio::select! {
        () = signals.next() => {}
        lost = engine.lost() => {
            host.drain().await;
            return Err(lost.into());
        }
    }
    let drained = async {
        host.drain().await;
        engine.shutdown().await
    };
    tokio::select! {
        drained = drained => match drained {
            true => Ok(ExitCode::SUCCESS),
            false => bail!("stopped before everything that was accepted had been processed"),
        },
        () = signals.next() => bail!("stopped at once, at the second signal"),
    }
}

fn greet(address: SocketAddr, shards: usize, data: Option<&Path>) -> io::Result<()> {
    let url = format!("http://{address}");
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "Fanfold listens on {url}, with {shards} shards.")?;
    match data {
        Some(folder) => {
            let folder = folder.display();
            writeln!(stdout, "Everything is kept in the folder {folder}. Ctrl-C ends it. Try:")?;
        }
        None => writeln!(
            stdout,
            "Everything is in memory, and gone when this ends. Ctrl-C ends it. Try:"
        )?,
    }
    writeln!(stdout)?;
    writeln!(
        stdout,
        r#"  curl -XPOST '{url}/command' -d '{{"type":"ledger","command":"open","id":1,"timestamp":11178,"user":"ann","org":"acme","data":{{"account":"cash"}}}}'"#
    )?;
    writeln!(stdout, "  curl '{url}/views/balances/ledger/org:acme?seq=1&wait=5000'")?;
    writeln!(stdout)?;
    stdout.flush()
}

/// Ctrl-C, and what service managers send.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
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
