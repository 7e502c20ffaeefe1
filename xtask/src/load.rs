//! Small loads on `fanfold up`, audited from outside: one of the ledger, with a kill and a restart in
//! the middle, and two from one workload file, audited without a model.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Seconds of load.
const SECONDS: u64 = 10;
/// Commands per second. A debug build on a busy machine does several times as many.
const RATE: &str = "500";
/// Seconds of the load from a workload file.
const FILE_SECONDS: u64 = 5;
/// How long the host may take to answer, also after a crash.
const READY: Duration = Duration::from_secs(60);
/// How long one answer about that may take.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the loads with the programs in the folder `built`.
pub(crate) fn load(built: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("fanfold-load-").tempdir()?.keep();
    println!("logs and data: {}", folder.display());
    let port = free_port()?;
    let mut host = Host::start(built, port, &folder)?;
    let report = folder.join("report.json");
    let generator = Command::new(built.join("loadtest"))
        .args(["run", "--target", &format!("http://127.0.0.1:{port}"), "--rate", RATE])
        .args(["--duration", &format!("{SECONDS}s"), "--tenants", "50", "--users", "3"])
        .args(["--duplicates", "0.05", "--out-of-order", "0.05", "--rejected", "0.05"])
        .arg("--json")
        .arg(&report)
        .spawn()
        .context("cannot start the generator")?;
    let mut generator = Running(generator);
    thread::sleep(Duration::from_secs(SECONDS / 2));
    println!("kill -9 of `fanfold up`");
    host.kill()?;
    host = Host::start(built, port, &folder)?;
    let status = generator.0.wait()?;
    ensure!(status.success(), "the load or its audit failed: {status}");
    let report: Value = serde_json::from_reader(File::open(&report)?)?;
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    let retries = count("/counts/retries/connection");
    ensure!(retries > Some(0), "no request met the crash: {}", report["counts"]);
    ensure!(
        count("/counts/due") == count("/counts/accepted"),
        "not all commands were accepted: {}",
        report["counts"]
    );
    ensure!(count("/audit/receipts") >= count("/counts/accepted"), "not all receipts were audited");
    ensure!(count("/audit/seen") > Some(0), "nothing was read during the load");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/workloads/ledger.yaml");
    // Its organisations are new in each run: an account can be opened only once.
    for _ in 0..2 {
        load_from_file(built, port, &folder, &example, "none")?;
    }
    let drafted = folder.join("draft.yaml");
    draft(built, port, &drafted)?;
    load_from_file(built, port, &folder, &drafted, "ledger")?;
    drop(host);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Lets the generator write a first workload file for the host.
fn draft(built: &Path, port: u16, file: &Path) -> Result<()> {
    let status = Command::new(built.join("loadtest"))
        .args(["init", "--target", &format!("http://127.0.0.1:{port}"), "--out"])
        .arg(file)
        .status()
        .context("cannot start the generator")?;
    ensure!(status.success(), "`loadtest init` failed: {status}");
    Ok(())
}

/// A load from a workload file, audited with this model.
fn load_from_file(built: &Path, port: u16, folder: &Path, file: &Path, model: &str) -> Result<()> {
    println!("a load from {}", file.display());
    let report = folder.join("file.json");
    let generator = Command::new(built.join("loadtest"))
        .args(["run", "--target", &format!("http://127.0.0.1:{port}"), "--rate", RATE])
        .args(["--duration", &format!("{FILE_SECONDS}s"), "--tenants", "20", "--users", "3"])
        .args(["--duplicates", "0.05", "--out-of-order", "0.05", "--reused", "0.05"])
        .args(["--model", model, "--workload"])
        .arg(file)
        .arg("--json")
        .arg(&report)
        .spawn()
        .context("cannot start the generator")?;
    let status = Running(generator).0.wait()?;
    ensure!(status.success(), "the load from a workload file or its audit failed: {status}");
    check_report(&report, model)
}

/// Checks the report of a load from a workload file, audited with this model: every command was accepted, and the load
/// had what it should test.
pub(crate) fn check_report(report: &Path, model: &str) -> Result<()> {
    let report: Value = serde_json::from_reader(File::open(report)?)?;
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    ensure!(report["audit"]["model"] == model, "it was audited with another model");
    ensure!(
        count("/counts/due") == count("/counts/accepted"),
        "not all commands were accepted: {}",
        report["counts"]
    );
    for outcome in ["accepted", "rejected", "duplicate"] {
        ensure!(count(&format!("/audit/outcomes/{outcome}")) > Some(0), "no command was {outcome}");
    }
    ensure!(count("/audit/seen") > Some(0), "nothing was read during the load");
    Ok(())
}

/// A process. It is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of loopback that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until a host on this port of loopback is ready. Fails if the process ends, or takes longer.
pub(crate) fn until_it_is_ready(host: &mut Child, port: u16, patience: Duration) -> Result<()> {
    let began = Instant::now();
    while !is_ready(port) {
        if let Some(status) = host.try_wait()? {
            bail!("`up` ended: {status}, see up.log");
        }
        ensure!(began.elapsed() < patience, "`up` does not answer after {patience:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a host on this port takes requests.
fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// `fanfold up`.
pub(crate) struct Host(Running);

impl Host {
    /// Starts it with its data and its log in `folder`, and waits until it answers.
    pub(crate) fn start(built: &Path, port: u16, folder: &Path) -> Result<Self> {
        Self::start_program(&built.join("fanfold"), port, folder)
    }

    /// As [`Host::start`], of any app's program.
    pub(crate) fn start_program(program: &Path, port: u16, folder: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(folder.join("up.log"))?;
        let child = Command::new(program)
            .args(["up", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(folder.join("data"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start `fanfold up`")?;
        let mut host = Self(Running(child));
        until_it_is_ready(&mut host.0.0, port, READY)?;
        Ok(host)
    }

    /// Sends SIGKILL, and waits for the end.
    fn kill(&mut self) -> Result<()> {
        self.0.0.kill()?;
        self.0.0.wait()?;
        Ok(())
    }
}
