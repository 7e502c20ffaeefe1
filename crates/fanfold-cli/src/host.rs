//! The API on a TCP port, until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long requests may go on once the host is told to stop. Commands take milliseconds; what is
/// cut off are long waits, whose callers ask again.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// A listening router.
pub struct Host {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

/// An address that is this process's own, and not served yet: who comes waits.
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

    /// Serves it.
    pub fn serve(self, api: Router) -> Host {
        // Answers are small and complete: they need not wait for more.
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
        });
        let (stop, stopped) = oneshot::channel();
        let served = axum::serve(listener, api).with_graceful_shutdown(async {
            // A host that is dropped stops, too.
            let _ = stopped.await;
        });
        Host { address: self.address, stop, served: tokio::spawn(async { served.await }) }
    }
}

impl Host {
    /// Listens on `address`; port 0 is any that is free.
    pub async fn listen(address: SocketAddr, api: Router) -> anyhow::Result<Self> {
        Ok(Bound::take(address).await?.serve(api))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and lets those at hand finish.
    pub async fn drain(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        let mut served = self.served;
        match timeout(DRAIN_MAX, &mut served).await {
            Ok(ended) => Ok(ended??),
            Err(_) => {
                tracing::warn!("some requests were cut off");
                served.abort();
                Ok(())
            }
        }
    }
}
