//! `lambda-host <config.json>` runs until it is killed.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use lambda_host::{config::Config, host};
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let path = std::env::args_os().nth(1).context("usage: lambda-host <config.json>")?;
    let path = Path::new(&path);
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let config: Config =
        serde_json::from_reader(file).with_context(|| format!("{}", path.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(host::run(config))
}
