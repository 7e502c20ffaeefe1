//! Metrics by the conventions of Prometheus: `promtool check metrics` reads those of a `fanfold up`
//! that has had requests of all kinds.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::load::{Host, free_port};
use crate::venv::run;

/// The package of Debian that has `promtool`.
const PACKAGE: &str = "prometheus";
/// How long the view may take to have the command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks the metrics of the `fanfold` in the folder `built`.
pub(crate) fn check(_: &Path, built: &Path) -> Result<()> {
    let promtool = promtool()?;
    let folder = tempfile::Builder::new().prefix("fanfold-metrics-").tempdir()?;
    let port = free_port()?;
    let host = Host::start(built, port, folder.path())?;
    let command = |id: u64, name: &str, data: &str| {
        format!(
            r#"{{"type":"ledger","command":"{name}","id":{id},"user":"ann","org":"acme","data":{data}}}"#
        )
    };
    let cash = r#"{"account":"cash"}"#;
    let lines = [
        command(1, "open", cash),
        command(1, "open", cash),
        command(2, "withdraw", r#"{"account":"cash","amount":1}"#),
        command(0, "open", cash),
    ];
    ask(port, "POST", "/commands", "*/*", &lines.join("\n"))?;
    ask(port, "GET", "/nothing", "*/*", "")?;
    let applied = r#"fanfold_apply_seconds_count{view="totals"} 2"#;
    let began = Instant::now();
    let text = loop {
        let text = ask(port, "GET", "/metrics", "text/plain", "")?;
        if text.lines().any(|line| line == applied) {
            break text;
        }
        ensure!(began.elapsed() < PATIENCE, "no line `{applied}` in\n{text}");
        thread::sleep(Duration::from_millis(20));
    };
    let open = ask(port, "GET", "/metrics", "application/openmetrics-text", "")?;
    ensure!(open.ends_with("# EOF\n"), "OpenMetrics must end with `# EOF`:\n{open}");
    drop(host);

    println!("\n== promtool: {} lines", text.lines().count());
    let mut check = Command::new(&promtool);
    let mut check = check.args(["check", "metrics"]).stdin(Stdio::piped()).spawn()?;
    let written = check.stdin.take().context("promtool has no input")?.write_all(text.as_bytes());
    let status = check.wait()?;
    ensure!(status.success(), "promtool finds mistakes in the metrics: {status}");
    written?;
    println!("no mistakes");
    Ok(())
}

/// Sends a request, and returns the body of the answer.
fn ask(port: u16, method: &str, path: &str, accept: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    // Of HTTP 1.0, so that the answer ends with the connection and has no chunks.
    let head = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\naccept: {accept}\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => bail!("`{method} {path}` has no answer: {answer}"),
    }
}

/// `promtool`: the one that the variable `PROMTOOL` names, else the one in `PATH`, else that of
/// Debian's package, which is taken from the mirror once and not installed.
fn promtool() -> Result<PathBuf> {
    if let Some(named) = env::var_os("PROMTOOL") {
        return Ok(named.into());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&folders).map(|folder| folder.join("promtool"));
    if let Some(found) = found.find(|file| file.is_file()) {
        return Ok(found);
    }
    let folder = folder()?;
    let program = folder.join("usr/bin/promtool");
    if !program.is_file() {
        download(&folder).context(
            "install promtool (Debian: `apt install prometheus`), or name it in PROMTOOL",
        )?;
    }
    Ok(program)
}

/// Beside the packages from PyPI.
fn folder() -> Result<PathBuf> {
    Ok(match crate::target_outside_the_clone() {
        Some(target) => target.with_file_name("promtool"),
        None => crate::target()?.join("promtool"),
    })
}

fn download(folder: &Path) -> Result<()> {
    println!("\n== promtool of Debian, into {}", folder.display());
    // Unpacked beside its place first, so that an interrupted download leaves nothing there.
    let parent = folder.parent().context("the folder has no parent")?;
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new().prefix("promtool-").tempdir_in(parent)?;
    run(Command::new("apt-get").args(["download", PACKAGE]).current_dir(new.path()))?;
    let mut files = fs::read_dir(new.path())?.flatten().map(|file| file.path());
    let package = files.find(|file| file.extension().is_some_and(|end| end == "deb"));
    let package = package.context("apt-get has downloaded no package")?;
    let unpacked = new.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
    fs::rename(unpacked, folder)?;
    Ok(())
}
