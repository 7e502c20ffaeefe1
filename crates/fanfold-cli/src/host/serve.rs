//! Serves one connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Method, Request, Response};
use axum::response::IntoResponse;
use fanfold_http::problem::{Kind, Problem};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::connections::{Connection, Entered, Phase};
use super::guard::Guard;
use super::limits::BUFFER_BYTES_MAX;
use super::raw;
use super::socket::{CountedBody, Socket, StreamedBody, Timer};
use super::{Lifecycle, drains};

/// Seconds after which a client should try again if there is no room. Source: the default of
/// [`Limits::grace`](super::Limits), after which an idle connection can be evicted.
const RETRY_AFTER_S: u64 = 1;
/// How long to read, after an answer, what the client still sends. Closing a connection with unread
/// bytes would reset it, and the client might lose the answer. Source: our choice.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// The most bytes to read after an answer. Source: our choice; a batch that is eight times too large.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long reads may continue after the host begins to drain: their waits may last longer than the
/// host does. Source: our choice; they are then answered well before `DRAIN_MAX` ends.
const READ_DRAIN_MAX: Duration = Duration::from_secs(2);

/// What all connections share.
pub(super) struct Served {
    pub(super) api: RwLock<Router>,
    pub(super) guard: Guard,
}

impl Served {
    fn router(&self) -> Router {
        self.api.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a connection ends.
enum End {
    /// The client or HTTP ended it; `is_broken` after an error.
    Closed { is_broken: bool },
    /// The time of its phase is over.
    Late,
    /// Another connection needs its place or memory.
    Evicted,
    /// There is no room for its body.
    Refused,
    /// The host ended.
    Stopped,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    entered: Entered,
    served: Arc<Served>,
    mut lifecycle: watch::Receiver<Lifecycle>,
) {
    let connection = &*entered;
    let socket = TokioIo::new(Socket::new(stream, connection.clone()));
    let answers =
        GuardedRouter { served, connection: connection.clone(), lifecycle: lifecycle.clone() };
    let mut http = http1::Builder::new()
        // The connection's own timer covers this and the other phases.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(socket, answers);
    let mut timer = Timer::default();
    let end = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| http.poll_without_shutdown(cx)) => {
                if let Err(error) = &ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                break End::Closed { is_broken: ended.is_err() };
            }
            // The poll above may have refused the body or changed the phase.
            end = poll_fn(|cx| {
                if connection.is_refused() {
                    return Poll::Ready(End::Refused);
                }
                match connection.deadline() {
                    Some(deadline) => timer.poll(cx, deadline).map(|()| End::Late),
                    None => Poll::Pending,
                }
            }) => break end,
            () = connection.evicted() => break End::Evicted,
            // A change that fails means that the host was dropped, which ends the connection, too.
            changed = lifecycle.changed() => match *lifecycle.borrow_and_update() {
                Lifecycle::Serving if changed.is_ok() => {}
                Lifecycle::Ended => break End::Stopped,
                Lifecycle::Serving | Lifecycle::Draining => {
                    Pin::new(&mut http).graceful_shutdown();
                    if changed.is_err() {
                        break End::Stopped;
                    }
                }
            },
        }
    };
    let phase = connection.phase().0;
    let http1::Parts { io, read_buf, .. } = http.into_parts();
    let stream = io.into_inner().into_stream();
    // The request's body was dropped. The rest is short, so the connection is not evicted for it.
    connection.release();
    connection.set(Phase::Work);
    match end {
        End::Stopped => {}
        End::Closed { is_broken: true } if raw::is_http2(&read_buf) => {
            answer_and_close(stream, raw::NO_HTTP2).await;
        }
        End::Closed { is_broken } => {
            if is_broken || connection.is_unread() {
                linger(stream).await;
            }
        }
        End::Late => match phase {
            Phase::Head => answer_and_close(stream, &raw::answer(&late("head"))).await,
            Phase::Body => answer_and_close(stream, &raw::answer(&late("body"))).await,
            Phase::Idle | Phase::Work | Phase::Answer => {}
        },
        End::Evicted => {
            tracing::warn!(
                ?phase,
                "the host closes a connection that waits for its client, to make room for another"
            );
            if matches!(phase, Phase::Head | Phase::Body) {
                // Another connection waits for this one's place, so this write does not wait.
                let _ = stream.try_write(&raw::answer(&no_room()));
            }
        }
        End::Refused => {
            tracing::warn!("the host refuses a request: it has no room for the body");
            answer_and_close(stream, &raw::answer(&no_room())).await;
        }
    }
}

/// Answers a connection for which there is no place.
pub(super) async fn refuse(stream: TcpStream) {
    answer_and_close(stream, &raw::answer(&no_room())).await;
}

fn late(what: &str) -> Problem {
    let detail =
        format!("the {what} of the request took too long: send it again, without pauses in it");
    Problem::new(Kind::REQUEST_TIMEOUT, detail)
}

fn no_room() -> Problem {
    let detail = "too many connections, or too many long requests, at the same time: \
                  send the request again, as it was, a little later";
    Problem::new(Kind::OVERLOADED, detail).retry_after(RETRY_AFTER_S)
}

fn stopping() -> Problem {
    let detail = "the host stops: send the request again when it runs again";
    Problem::new(Kind::STOPPING, detail).retry_after(RETRY_AFTER_S)
}

/// Returns after the host has drained for [`READ_DRAIN_MAX`].
async fn late_in_drain(lifecycle: watch::Receiver<Lifecycle>) {
    drains(lifecycle).await;
    sleep(READ_DRAIN_MAX).await;
}

async fn answer_and_close(mut stream: TcpStream, answer: &[u8]) {
    // A client that does not read gets no answer.
    if matches!(timeout(LINGER_MAX, stream.write_all(answer)).await, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Closes the connection after the client has had time to read the answer.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let mut left = LINGER_BYTES_MAX;
        let mut piece = [0; 4096];
        while left > 0 {
            match stream.read(&mut piece).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        std::io::Result::Ok(())
    };
    // Ignores errors and the timeout: the client may have closed, or send nothing more.
    let _ = timeout(LINGER_MAX, drained).await;
}

/// The router behind the guard, as the service that hyper calls.
struct GuardedRouter {
    served: Arc<Served>,
    connection: Arc<Connection>,
    lifecycle: watch::Receiver<Lifecycle>,
}

impl Service<Request<Incoming>> for GuardedRouter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (served, connection) = (self.served.clone(), self.connection.clone());
        let lifecycle = self.lifecycle.clone();
        Box::pin(async move {
            let is_read = [Method::GET, Method::HEAD].contains(request.method());
            let request = request.map(|body| Body::new(CountedBody::new(body, connection.clone())));
            let mut response = match served.guard.check(&request) {
                Ok(()) if is_read => tokio::select! {
                    biased;
                    response = served.router().oneshot(request) => response?,
                    () = late_in_drain(lifecycle.clone()) => stopping().into_response(),
                },
                Ok(()) => served.router().oneshot(request).await?,
                Err(problem) => {
                    drop(request);
                    problem.into_response()
                }
            };
            // From now on the answer's body counts instead of the request's.
            connection.release();
            if response.body().size_hint().exact().is_none() {
                let counted =
                    |body| Body::new(StreamedBody::new(body, connection.clone(), lifecycle));
                response = response.map(counted);
            }
            let length = response.body().size_hint().lower() as usize;
            if !connection.reserve(0, length) && is_read {
                response = no_room().into_response();
            }
            if connection.is_unread() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            connection.set(Phase::Answer);
            Ok(response)
        })
    }
}
