//! `fanfold up`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use fanfold::{Services, Views};
use fanfold_embedded::shards::ShardState;
use fanfold_embedded::{Config, Engine};
use fanfold_http::{Api, Metrics, router_with};
use fanfold_pipeline::panics;
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin;
use crate::gauges::Gauges;
use crate::host::Bound;

/// The arguments.
#[derive(Debug, Args)]
pub struct Up {
    /// Where to listen; port 0 is any that is free. There is no authentication: whoever reaches
    /// this address may do everything.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
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

impl Up {
    /// Runs until a signal stops it; then takes nothing more, and finishes what it has accepted.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        tracing_subscriber::fmt().with_env_filter(self.log).with_writer(io::stderr).init();
        panics::log_those_caught();
        let config = Config {
            services: Services::new().with::<Ledger>(),
            views: Views::new().with::<Balances>().with::<Statement>().with::<Totals>(),
            shards: self.shards.into(),
            ..Config::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        let data = (!self.in_memory).then_some(self.data);
        let ended = runtime.block_on(host(self.listen, config, data));
        // What does not come back by itself, a service's endless loop say, must not hold the exit.
        runtime.shutdown_background();
        ended
    }
}

async fn host(
    listen: SocketAddr,
    config: Config,
    data: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    // First what may be taken: a folder that was opened has to be closed again.
    let bound = Bound::take(listen).await?;
    let engine = match &data {
        Some(folder) => Engine::open(config, folder)?,
        None => Engine::start(config),
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
    };
    let gauges = Gauges(engine.watch().clone());
    api.metrics.register(|registry| registry.register_collector(Box::new(gauges)));
    let api = router_with(api, admin::routes(engine.command_shards().clone()));
    let host = bound.serve(api);
    if !listen.ip().is_loopback() {
        tracing::warn!(%listen, "others may reach this address, and there is no authentication");
    }
    greet(host.address(), shards, data.as_deref())?;

    tokio::select! {
        () = signals.next() => {}
        lost = engine.lost() => {
            host.drain().await?;
            return Err(lost.into());
        }
    }
    let drained = async {
        host.drain().await?;
        anyhow::Ok(engine.shutdown().await)
    };
    tokio::select! {
        drained = drained => match drained? {
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
