//! One execution environment of a function: a process, and its invocations.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::{Config, Function};
use crate::runtime_api::{Job, Reply, RuntimeApi};

/// How long a process may take until it requests an event (Lambda's init phase).
const INIT: Duration = Duration::from_secs(10);

/// How often to check whether a process has ended. (`tokio`'s feature `process` would make this
/// workspace build everything that depends on `tokio` once more.)
const EXIT_POLL: Duration = Duration::from_millis(20);

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The function reported an error.
    #[error("the function failed: {0}")]
    Function(String),
    /// The process could not be started.
    #[error("the program does not start: {0}")]
    Start(std::io::Error),
    /// The process did not request an event in time.
    #[error("the process has not requested an event: {0}")]
    Init(String),
    /// The process ended during the invocation.
    #[error("the process ended: {0}")]
    Exited(String),
    /// The process was killed because it did not answer.
    #[error("no answer within {0} ms")]
    TimedOut(u64),
    /// The process was killed by a planted fault.
    #[error("killed")]
    Killed,
}

/// How a function's process is started.
#[derive(Debug)]
pub(crate) struct Program {
    bootstrap: PathBuf,
    env: Vec<(String, String)>,
    log: PathBuf,
    pub(crate) arn: String,
    timeout_ms: u64,
}

impl Program {
    pub(crate) fn new(name: &str, function: &Function, config: &Config) -> Self {
        let lambda = [
            ("PATH", "/usr/bin:/bin"),
            ("TZ", ":UTC"),
            ("AWS_REGION", &config.region),
            ("AWS_DEFAULT_REGION", &config.region),
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &function.memory_mb.to_string()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{name}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "host"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let own = function.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        let (region, account) = (&config.region, &config.account);
        Self {
            bootstrap: function.bootstrap.clone(),
            env: lambda.into_iter().chain(own).collect(),
            log: config.logs.join(name).with_extension("log"),
            arn: format!("arn:aws:lambda:{region}:{account}:function:{name}"),
            timeout_ms: function.timeout_ms,
        }
    }
}

struct Process {
    child: Child,
    api: RuntimeApi,
}

/// One environment. Its process starts with the first invocation.
#[derive(Default)]
pub(crate) struct Worker {
    process: Option<Process>,
}

impl Worker {
    /// Invokes the function. The process survives only if the function answers, or reports an
    /// error. With `kill_after` it is killed after this time, or when it answers: its answer is lost.
    pub(crate) async fn invoke(
        &mut self,
        program: &Program,
        id: String,
        event: Bytes,
        kill_after: Option<Duration>,
    ) -> Result<Bytes, Failed> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => start(program).await.map_err(Failed::Start)?,
        };
        match process.invoke(program, id, event, kill_after).await {
            result @ (Ok(_) | Err(Failed::Function(_))) => {
                self.process = Some(process);
                result
            }
            Err(failed) => Err(failed),
        }
    }

    /// Kills the process. Returns whether there was one.
    pub(crate) fn kill(&mut self) -> bool {
        self.process.take().is_some()
    }
}

async fn start(program: &Program) -> std::io::Result<Process> {
    let api = RuntimeApi::listen().await?;
    let log = File::options().create(true).append(true).open(&program.log)?;
    let mut command = Command::new(&program.bootstrap);
    command.env_clear().envs(program.env.iter().map(|(name, value)| (name, value)));
    command.env("AWS_LAMBDA_RUNTIME_API", api.address.to_string());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Process { child: command.spawn()?, api })
}

impl Process {
    async fn invoke(
        &mut self,
        program: &Program,
        id: String,
        event: Bytes,
        kill_after: Option<Duration>,
    ) -> Result<Bytes, Failed> {
        let (taken, is_taken) = oneshot::channel();
        let (arn, timeout_ms) = (program.arn.clone(), program.timeout_ms);
        let job = Job { id: id.clone(), arn, timeout_ms, event, taken };
        // One invocation at a time, so the channel has room.
        let _ = self.api.jobs.send(job).await;
        let handed_over = tokio::select! {
            // A process that answers immediately has taken the job before, so that is checked
            // first.
            biased;
            handed_over = timeout(INIT, is_taken) => handed_over,
            Some(reply) = self.api.replies.recv() => {
                return Err(said_at_start(reply));
            }
            status = ended(&mut self.child) => return Err(exited(status)),
        };
        if !matches!(handed_over, Ok(Ok(()))) {
            return Err(Failed::Init(format!("not within {INIT:?}")));
        }
        let began = Instant::now();
        let end = began + Duration::from_millis(timeout_ms);
        let killed = kill_after.map_or(end, |after| began + after);
        let reply = tokio::select! {
            reply = reply_to(&mut self.api.replies, &id) => reply,
            status = ended(&mut self.child) => Err(exited(status)),
            () = sleep_until(end.min(killed)) => Err(Failed::TimedOut(timeout_ms)),
        };
        if kill_after.is_some() { Err(Failed::Killed) } else { reply }
    }
}

impl Drop for Process {
    /// Kills the process, and waits for its end.
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!(%error, "a process cannot be killed");
        }
    }
}

/// Waits until the process ends by itself.
async fn ended(child: &mut Child) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(EXIT_POLL).await;
    }
}

fn said_at_start(reply: Reply) -> Failed {
    match reply {
        Reply::InitError(body) => Failed::Init(String::from_utf8_lossy(&body).into_owned()),
        Reply::Answer { id, .. } | Reply::Error { id, .. } => {
            Failed::Init(format!("a reply to {id}, which has ended"))
        }
    }
}

async fn reply_to(replies: &mut mpsc::Receiver<Reply>, wanted: &str) -> Result<Bytes, Failed> {
    while let Some(reply) = replies.recv().await {
        match reply {
            Reply::Answer { id, body } if id == wanted => return Ok(body),
            Reply::Error { id, body } if id == wanted => {
                return Err(Failed::Function(String::from_utf8_lossy(&body).into_owned()));
            }
            other => tracing::warn!(?other, "a reply to an invocation that has ended"),
        }
    }
    Err(Failed::Exited("its runtime API has ended".to_owned()))
}

fn exited(status: std::io::Result<ExitStatus>) -> Failed {
    Failed::Exited(status.map_or_else(|error| error.to_string(), |status| status.to_string()))
}
