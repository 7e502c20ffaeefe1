//! Serves a router on a TCP port.
//!
//! [`Limits`] bounds what clients can use: connections, and the bytes of bodies. When there is no
//! room for one more, the host evicts the connections that have waited longest for their clients.
//! If there are none, it refuses the new connection or request (503 with `Retry-After`). So idle
//! and slow clients do not block others.

mod connections;
mod guard;
mod limits;
mod raw;
mod serve;
mod socket;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use connections::Connections;
use guard::Guard;
use limits::REFUSALS_MAX;
use serve::Served;

pub use guard::HostName;
pub use limits::Limits;

/// How long requests may continue after the host begins to drain. Source: our choice; commands take
/// milliseconds. Callers of longer waits ask again, or send their command again with its id.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Pause after a connection could not be accepted, so that others can end. Source: our choice.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The file to keep open as a spare: any file will do.
const SPARE_FILE: &str = "/dev/null";

/// The state of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifecycle {
    Serving,
    /// The host takes no new requests, and finishes those that it has.
    Draining,
    /// All connections end.
    Ended,
}

/// Returns when the host no longer serves: it drains, has ended, or was dropped.
async fn drains(mut lifecycle: watch::Receiver<Lifecycle>) {
    // An error means that the host was dropped.
    let _ = lifecycle.wait_for(|state| *state != Lifecycle::Serving).await;
}

/// A router that is served on an address.
pub struct Host {
    address: SocketAddr,
    connections: Arc<Connections>,
    lifecycle: watch::Sender<Lifecycle>,
    served: Arc<Served>,
}

/// An address that this process has bound but does not serve yet. Clients that connect wait.
pub struct BoundAddress {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundAddress {
    /// Binds an address; port 0 means any free port.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = match TcpListener::bind(address).await {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                bail!("{address} is taken by another program: choose another with --listen")
            }
            listener => listener.with_context(|| format!("cannot listen on {address}"))?,
        };
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `api`, until [`Host::change`]. Requests may name the address or one of `names` as their host.
    pub fn serve(self, api: Router, names: &[HostName], limits: Limits) -> Host {
        let (state, lifecycle) = watch::channel(Lifecycle::Serving);
        let guard = Guard::new(self.address, names);
        let served = Arc::new(Served { api: RwLock::new(api), guard });
        let connections = Connections::new(limits);
        let acceptor = Acceptor {
            listener: self.listener,
            connections: connections.clone(),
            served: served.clone(),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            spare: File::open(SPARE_FILE).ok(),
            lifecycle,
        };
        tokio::spawn(acceptor.run());
        Host { address: self.address, connections, lifecycle: state, served }
    }
}

impl Host {
    /// Binds an address and serves `api` with the default limits; port 0 means any free port.
    pub async fn listen(address: SocketAddr, api: Router) -> anyhow::Result<Self> {
        Ok(BoundAddress::bind(address).await?.serve(api, &[], Limits::default()))
    }

    /// The address that the host listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `api` from the next request on, also on open connections.
    pub fn change(&self, api: Router) {
        *self.served.api.write().unwrap_or_else(PoisonError::into_inner) = api;
    }

    /// A handle that reads what the clients use, also after the host has ended.
    pub fn usage(&self) -> Usage {
        Usage(self.connections.clone())
    }

    /// Takes no new requests, and waits up to 3 s for those that it has.
    pub async fn drain(self) {
        self.lifecycle.send_replace(Lifecycle::Draining);
        if timeout(DRAIN_MAX, self.lifecycle.closed()).await.is_err() {
            tracing::warn!("the host stops before it has answered all requests");
            self.lifecycle.send_replace(Lifecycle::Ended);
        }
    }
}

/// What the clients of a host use.
pub struct Usage(Arc<Connections>);

impl Usage {
    /// The number of open connections, and the most there may be.
    pub fn connections(&self) -> (usize, usize) {
        (self.0.count(), self.0.limits.connections_max)
    }

    /// The bytes of bodies in memory, and the most there may be.
    pub fn body_bytes(&self) -> (usize, usize) {
        (self.0.bytes(), self.0.limits.body_bytes_max)
    }
}

/// The task that accepts connections.
struct Acceptor {
    listener: TcpListener,
    connections: Arc<Connections>,
    served: Arc<Served>,
    refusals: Arc<Semaphore>,
    /// A file to close when no more files can be opened, so that one connection can be accepted.
    spare: Option<File>,
    lifecycle: watch::Receiver<Lifecycle>,
}

impl Acceptor {
    async fn run(mut self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                // The host drains, or was dropped.
                _ = self.lifecycle.changed() => return,
            };
            match accepted {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if is_out_of_files(&error) => {
                    tracing::error!(
                        %error,
                        connections = self.connections.count(),
                        "no more connections can be accepted: raise the limit of open files"
                    );
                    self.refuse_one().await;
                    sleep(ACCEPT_RETRY).await;
                }
                // Only this connection failed: its client reset it before it was accepted.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "the host cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        // Answers are written whole, so waiting for more data only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        if let Some(entered) = self.connections.enter() {
            tokio::spawn(serve::serve(
                stream,
                entered,
                self.served.clone(),
                self.lifecycle.clone(),
            ));
            return;
        }
        tracing::warn!(
            connections = self.connections.count(),
            "the host refuses a connection: all possible connections are working on requests"
        );
        // Without a permit the connection is closed without an answer.
        if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                serve::refuse(stream).await;
                drop(permit);
            });
        }
    }

    /// Accepts one connection in place of the spare file, and answers it with 503.
    async fn refuse_one(&mut self) {
        self.spare = None;
        if let Ok(Ok((stream, _))) = timeout(ACCEPT_RETRY, self.listener.accept()).await {
            // The spare file needs the connection's file descriptor soon.
            let _ = timeout(ACCEPT_RETRY, serve::refuse(stream)).await;
        }
        self.spare = File::open(SPARE_FILE).ok();
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
