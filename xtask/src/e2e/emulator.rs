//! Starts AWS on this machine: `ministack`, which runs the Lambdas' own binaries.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::venv::Venv;

/// How long a server may take to answer.
const READY: Duration = Duration::from_secs(60);
/// Runs the emulator in the process group of this shell until this program closes its end of the
/// pipe, or ends for any reason. Then the shell ends everything in the group, the Lambdas too. The
/// shell starts the emulator before it sets the trap, which the emulator would inherit.
const GUARD: &str = r#""$@" & trap '' TERM; read -r _; kill -TERM 0; sleep 0.5; kill -KILL 0"#;
/// The region, and the account's root, which the emulator allows everything.
const ACCOUNT: [(&str, &str); 3] = [
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

/// A server with all processes that it has started. Dropping this ends them.
pub(super) struct Guarded(Child);

impl Guarded {
    /// Starts a server, and returns when it answers on this port. `prepare` adds to its command.
    pub(super) fn start(
        what: &str,
        program: &Path,
        port: u16,
        log: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let output = File::create(log)?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).arg(program);
        // Hides this machine's AWS, Docker and earlier runs.
        command.env_clear().envs(kept()).envs(ACCOUNT);
        prepare(&mut command);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let guard = command.process_group(0).spawn();
        let mut guarded = Self(guard.with_context(|| format!("cannot start {what}"))?);
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = guarded.0.try_wait()? {
                bail!("{what} ended: {status}, see {}", log.display());
            }
            ensure!(began.elapsed() < READY, "{what} does not answer, see {}", log.display());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(guarded)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // The shell ends everything in its group, itself included.
        let _ = self.0.wait();
    }
}

/// A running `ministack`. Dropping this ends it.
pub(crate) struct Emulator {
    _guarded: Guarded,
    port: u16,
}

impl Emulator {
    /// Starts an empty emulator that stores everything in this folder.
    pub(crate) fn start(venv: &Venv, folder: &Path) -> Result<Self> {
        let (port, state) = (free_port()?, folder.join("emulator"));
        fs::create_dir_all(&state)?;
        let (program, log) = (venv.program("ministack"), folder.join("emulator.log"));
        let guarded = Guarded::start("the emulator", &program, port, &log, |command| {
            command.env("TMPDIR", &state);
            command.env("STATE_DIR", &state).env("S3_DATA_DIR", state.join("s3"));
            command
                .env("DOCKER_HOST", format!("unix://{}", state.join("no-docker.sock").display()));
            // It would open these ports on all interfaces.
            command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0");
            // Checks signatures, and each role's permissions.
            command.env("AUTH", "true");
            command.env("BIND_HOST", "127.0.0.1").env("MINISTACK_HOST", "127.0.0.1");
            command.env("GATEWAY_PORT", port.to_string());
            // The Lambdas find AWS by this.
            command.env("AWS_ENDPOINT_URL", url(port));
        })?;
        Ok(Self { _guarded: guarded, port })
    }

    /// The variables by which a program finds this AWS, and no other.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        environment(self.port)
    }

    /// The URL of an HTTP API. Its own host name does not resolve on this machine.
    pub(crate) fn api(&self, id: &str) -> String {
        format!("{}/_aws/execute-api/{id}", url(self.port))
    }
}

/// The variables by which a program finds the AWS on this port, and no other.
pub(super) fn environment(port: u16) -> Vec<(&'static str, String)> {
    let mut environment: Vec<_> =
        ACCOUNT.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    environment.push(("AWS_ENDPOINT_URL", url(port)));
    // Hides the configuration of the user that runs this.
    environment.push(("AWS_CONFIG_FILE", "/dev/null".to_owned()));
    environment.push(("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()));
    environment.push(("AWS_PAGER", String::new()));
    environment
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(super) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn kept() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    ["HOME", "LANG", "PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// A new folder. It stays after a failure, whose message names it.
pub(super) fn folder() -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("fanfold-e2e-").tempdir()?.keep())
}
