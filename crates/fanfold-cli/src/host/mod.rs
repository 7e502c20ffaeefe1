//! The API on a TCP port, until it is told to stop.
//!
//! Everything that clients can take is bounded ([`Limits`]): connections, and the bytes of bodies.
//! When there is no room for another, those make room that have waited longest for their clients;
//! if there are none, the new one is told to come again (503, `Retry-After`). So clients that do
//! nothing, or that do it slowly, keep no other client waiting.

mod connections;
mod guard;
mod limits;
mod raw;
mod serve;
mod socket;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use connections::Connections;
use limits::REFUSALS_MAX;
use serve::Served;

pub use guard::{Guard, HostName};
pub use limits::Limits;

/// How long requests may go on once the host is told to stop. Commands take milliseconds; what is
/// cut off are long waits, whose callers ask again.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Between two tries to take a connection when it cannot be taken: time for others to end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Whatever it is, it is one that can be closed.
const SPARE: &str = "/dev/null";

/// What a host is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// No more requests; those at hand go on.
    Draining,
    /// Nothing goes on.
    Ended,
}

/// A listening router.
pub struct Host {
    address: SocketAddr,
    connections: Arc<Connections>,
    stage: watch::Sender<Stage>,
}

/// An address that is this process's own, and not served yet: clients that connect meanwhile wait.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Takes an address; port 0 is any that is free.
    pub async fn take(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                bail!("{address} is taken by another program: choose another with --listen")
            }
            Err(e) => bail!("cannot listen on {address}: {e}"),
        };
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves it, under the name of its address and these.
    pub fn serve(self, api: Router, names: &[HostName], limits: Limits) -> Host {
        let (stage, stages) = watch::channel(Stage::Serving);
        let served = Served { api, guard: Guard::new(self.address, names) };
        let connections = Connections::new(limits);
        let accepting = Accepting {
            listener: self.listener,
            connections: connections.clone(),
            served: Arc::new(served),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            spare: File::open(SPARE).ok(),
            stages,
        };
        tokio::spawn(accepting.run());
        Host { address: self.address, connections, stage }
    }
}

impl Host {
    /// Listens on `address`; port 0 is any that is free.
    pub async fn listen(address: SocketAddr, api: Router) -> anyhow::Result<Self> {
        Ok(Bound::take(address).await?.serve(api, &[], Limits::default()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its clients take, for as long as somebody wants to know.
    pub fn usage(&self) -> Usage {
        Usage(self.connections.clone())
    }

    /// Takes no more requests, and lets those at hand finish.
    pub async fn drain(self) {
        self.stage.send_replace(Stage::Draining);
        if timeout(DRAIN_MAX, self.stage.closed()).await.is_err() {
            tracing::warn!("some requests were cut off");
            self.stage.send_replace(Stage::Ended);
        }
    }
}

/// What the clients of a host take.
pub struct Usage(Arc<Connections>);

impl Usage {
    /// Connections that are open, and how many may be.
    pub fn connections(&self) -> (usize, usize) {
        (self.0.count(), self.0.limits.connections_max)
    }

    /// Bytes of bodies under way, and how many may be.
    pub fn body_bytes(&self) -> (usize, usize) {
        (self.0.bytes(), self.0.limits.body_bytes_max)
    }
}

/// The task that takes connections.
struct Accepting {
    listener: TcpListener,
    connections: Arc<Connections>,
    served: Arc<Served>,
    refusals: Arc<Semaphore>,
    /// A file that is closed to take a connection when no more files can be opened.
    spare: Option<File>,
    stages: watch::Receiver<Stage>,
}

impl Accepting {
    async fn run(mut self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                // It says draining, or the host was dropped.
                _ = self.stages.changed() => return,
            };
            match accepted {
                Ok((stream, _)) => self.begin(stream),
                Err(error) if no_files(&error) => {
                    tracing::error!(
                        %error,
                        connections = self.connections.count(),
                        "no more connections can be taken: raise the limit of open files"
                    );
                    self.answer_one().await;
                    sleep(ACCEPT_AGAIN).await;
                }
                // Of that one connection only: it was reset before it was taken.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "a connection cannot be taken");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn begin(&self, stream: TcpStream) {
        // Answers are small and complete: they need not wait for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        if let Some(entered) = self.connections.enter() {
            tokio::spawn(serve::serve(stream, entered, self.served.clone(), self.stages.clone()));
            return;
        }
        tracing::warn!(
            connections = self.connections.count(),
            "a connection is refused: as many as can be are worked for"
        );
        // One that finds no permit is closed at once.
        if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                serve::refuse(stream).await;
                drop(permit);
            });
        }
    }

    /// Takes one connection in the place of the spare file, and tells it to come again.
    async fn answer_one(&mut self) {
        self.spare = None;
        if let Ok(Ok((stream, _))) = timeout(ACCEPT_AGAIN, self.listener.accept()).await {
            // Its file must be free again soon.
            let _ = timeout(ACCEPT_AGAIN, serve::refuse(stream)).await;
        }
        self.spare = File::open(SPARE).ok();
    }
}

fn no_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
