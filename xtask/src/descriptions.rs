//! The documents by which others use the API and the topic: schemathesis sends `fanfold up` requests that its OpenAPI
//! document allows, and some that it does not; the AsyncAPI document is validated.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::load::{Host, free_port};
use crate::npm;
use crate::venv::{Venv, run};

/// Where schemathesis begins to draw. Source: any; the same in each run, so that a failure comes again.
const SEED: &str = "1";

/// Checks both documents of the `fanfold` in the folder `built`.
pub(crate) fn check(root: &Path, built: &Path) -> Result<()> {
    let venv = Venv::ready()?;
    let parser = root.join("xtask/npm");
    npm::ready(&parser)?;
    let folder = tempfile::Builder::new().prefix("fanfold-described-").tempdir()?;
    let port = free_port()?;
    let host = Host::start(built, port, folder.path())?;

    try_requests(&venv, root, port, folder.path())?;
    drop(host);

    println!("\n== AsyncAPI: its parser");
    let printed = Command::new(built.join("fanfold")).arg("schema").output()?;
    ensure!(printed.status.success(), "`fanfold schema` failed: {}", printed.status);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout)?;
    let mut validator = Command::new("node");
    let validator = validator.arg("asyncapi.mjs").current_dir(&parser).stdin(Stdio::piped());
    let mut validator = validator.spawn().context("cannot start node")?;
    let mut input = validator.stdin.take().context("node has no input")?;
    // If the validator ends early, its own message says why.
    let written = input.write_all(printed["asyncapi"].to_string().as_bytes());
    drop(input);
    let status = validator.wait()?;
    ensure!(status.success(), "the AsyncAPI document is not valid: {status}");
    written?;
    println!("valid");
    Ok(())
}

/// Sends the host on this port of loopback requests that its OpenAPI document allows, and some that it does not. `folder`
/// takes what the run writes.
pub(crate) fn try_requests(venv: &Venv, root: &Path, port: u16, folder: &Path) -> Result<()> {
    println!("\n== OpenAPI: schemathesis");
    let mut schemathesis = venv.command("schemathesis");
    schemathesis.arg("--config-file").arg(root.join("xtask/schemathesis.toml"));
    schemathesis
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", root.join("xtask"));
    schemathesis.args(["run", &format!("http://127.0.0.1:{port}/openapi.json"), "--seed", SEED]);
    run(schemathesis.current_dir(folder))
}
