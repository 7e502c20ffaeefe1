//! The real binary, as a child process.

mod audit;
mod backup;
mod client;
mod crash;
#[cfg(all(feature = "fault-points", target_os = "linux", target_arch = "x86_64"))]
mod crash_points;
mod drills;
#[cfg(feature = "fault-points")]
mod faults;
mod folder;
mod full_disk;
mod gone;
mod hostile;
mod load;
mod names;
mod new;
mod operate;
mod repair;
mod schema;
mod scripted;
mod send;
mod shards;
mod traces;
mod up;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A command that runs `fanfold`.
pub(crate) fn fanfold(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfold"));
    command.args(args).env_remove("FANFOLD_URL").env_remove("FANFOLD_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command that runs `fanfold up` on a folder and a free port.
pub(crate) fn up_on(folder: &Path) -> Command {
    let mut command = fanfold(&["up", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(folder);
    command
}

/// `fanfold up` on a free port. It is killed when this is dropped.
pub(crate) struct Up {
    child: Child,
    pub(crate) url: String,
    /// The `curl` commands that it prints.
    pub(crate) to_paste: Vec<String>,
    _stdout: BufReader<ChildStdout>,
    /// Reads standard error, so that the process never blocks on a full pipe.
    stderr: Option<JoinHandle<String>>,
}

impl Up {
    /// Starts one that keeps everything in memory.
    pub(crate) fn new() -> Self {
        Self::start(&mut fanfold(&["up", "--in-memory", "--listen", "127.0.0.1:0"]))
    }

    /// Starts one that keeps everything in a folder.
    pub(crate) fn on(folder: &Path) -> Self {
        Self::start(&mut up_on(folder))
    }

    /// Starts a command such as [`up_on`].
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::try_start(command).unwrap_or_else(|said| panic!("it did not start: {said}"))
    }

    /// Like [`Up::start`], but returns its standard error if it does not start.
    pub(crate) fn try_start(command: &mut Command) -> Result<Self, String> {
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("it is text");
            line.trim().to_owned()
        };
        let mut pipe = child.stderr.take().expect("it is piped");
        let stderr = thread::spawn(move || {
            let mut stderr = String::new();
            pipe.read_to_string(&mut stderr).expect("it is text");
            stderr
        });
        let first = line();
        if first.is_empty() {
            child.wait().expect("it ends");
            return Err(stderr.join().expect("it is read"));
        }
        let url = first.split_once(" on ").and_then(|(_, rest)| rest.split_once(','));
        let url = url.unwrap_or_else(|| panic!("no address in `{first}`")).0.to_owned();
        let to_paste = (0..5).map(|_| line()).filter(|line| line.starts_with("curl ")).collect();
        Ok(Self { child, url, to_paste, _stdout: stdout, stderr: Some(stderr) })
    }

    /// Runs `fanfold` as a client of it.
    pub(crate) fn client(&self, args: &[&str]) -> Output {
        fanfold(args).env("FANFOLD_URL", &self.url).output().expect("the binary starts")
    }

    /// Like [`Up::client`], with standard input.
    pub(crate) fn client_reads(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = fanfold(args);
        command.env("FANFOLD_URL", &self.url).stdin(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut pipe = child.stdin.take().expect("it is piped");
        let stdin = stdin.to_vec();
        let writer = thread::spawn(move || pipe.write_all(&stdin));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("the writer ends").expect("it is read");
        output
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits up to `within` for its end; returns the signal that ended it, if one did.
    #[cfg_attr(not(feature = "fault-points"), expect(dead_code, reason = "only faults need it"))]
    pub(crate) fn died(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status.signal();
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Sends it a signal, such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is `kill`").success());
    }

    /// Waits for its end; returns the exit code and its standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        let stderr = self.stderr.take().map(|stderr| stderr.join().expect("it is read"));
        (status.code(), stderr.unwrap_or_default())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of standard output. Checks the exit code.
#[track_caller]
pub(crate) fn lines(output: &Output, code: i32) -> Vec<String> {
    let stdout = String::from_utf8(output.stdout.clone()).expect("it is text");
    assert_eq!(output.status.code(), Some(code), "{stdout}\n{}", stderr(output));
    stdout.lines().map(str::to_owned).collect()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it is text")
}
