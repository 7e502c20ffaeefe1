//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::timeout;
use tower::ServiceExt;

use super::Stage;
use super::connections::{Connection, Entered, Phase};
use super::guard::Guard;
use super::limits::BUFFER_BYTES_MAX;
use super::raw;
use super::socket::{Counted, Socket, Timer};

/// Seconds until a client should come again when there is no room: some waiting ones have to go.
const RETRY_AFTER_S: u64 = 1;
/// How long, and how much, is read of a client that was answered before it had sent everything: as
/// long as it sends, the system would throw the answer away with the connection.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Room for a first mistake, a batch a few times too large.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What all connections are served with.
pub(super) struct Served {
    pub(super) api: Router,
    pub(super) guard: Guard,
}

/// Why a connection ends.
enum End {
    /// HTTP says so, or the socket.
    Closed { is_broken: bool },
    /// It took too long.
    Late,
    /// Its place or its memory is needed.
    Cut,
    /// Its body does not fit.
    Refused,
    /// The host ends.
    Stopped,
}

/// Serves it until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    entered: Entered,
    served: Arc<Served>,
    mut stage: watch::Receiver<Stage>,
) {
    let connection = &*entered;
    let socket = TokioIo::new(Socket::new(stream, connection.clone()));
    let answers = Answers { served, connection: connection.clone() };
    let mut http = http1::Builder::new()
        // The connection's own timer knows more.
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
            // What follows depends on what the poll above has done.
            end = poll_fn(|cx| {
                if connection.is_refused() {
                    return Poll::Ready(End::Refused);
                }
                match connection.deadline() {
                    Some(deadline) => timer.poll(cx, deadline).map(|()| End::Late),
                    None => Poll::Pending,
                }
            }) => break end,
            () = connection.cut() => break End::Cut,
            // A host that was dropped ends, too.
            changed = stage.changed() => match *stage.borrow_and_update() {
                Stage::Serving if changed.is_ok() => {}
                Stage::Ended => break End::Stopped,
                Stage::Serving | Stage::Draining => {
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
    // With the request its body is gone; what is left to do is short, and no reason to be cut.
    connection.release();
    connection.set(Phase::Work);
    match end {
        End::Stopped => {}
        End::Closed { is_broken: true } if raw::is_http2(&read_buf) => {
            say(stream, raw::NO_HTTP2).await;
        }
        End::Closed { is_broken } => {
            if is_broken || connection.is_unread() {
                linger(stream).await;
            }
        }
        End::Late => match phase {
            Phase::Head => say(stream, &raw::answer(&late("head"))).await,
            Phase::Body => say(stream, &raw::answer(&late("body"))).await,
            Phase::Idle | Phase::Work | Phase::Answer => {}
        },
        End::Cut => {
            tracing::warn!(
                ?phase,
                "a connection is closed that has waited long for its client: others need the room"
            );
            if matches!(phase, Phase::Head | Phase::Body) {
                // Its place is given away already: no time for more than a try.
                let _ = stream.try_write(&raw::answer(&no_room()));
            }
        }
        End::Refused => {
            tracing::warn!("a request is refused: there is no room for its body");
            say(stream, &raw::answer(&no_room())).await;
        }
    }
}

/// Answers a client that cannot be served at all.
pub(super) async fn refuse(stream: TcpStream) {
    say(stream, &raw::answer(&no_room())).await;
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

async fn say(mut stream: TcpStream, answer: &[u8]) {
    // A client that does not read it goes without an answer.
    if matches!(timeout(LINGER_MAX, stream.write_all(answer)).await, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Closes it when the client has had time to read what was said.
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
    // The client may be gone, or say nothing more.
    let _ = timeout(LINGER_MAX, drained).await;
}

/// The router, as hyper calls it.
struct Answers {
    served: Arc<Served>,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (served, connection) = (self.served.clone(), self.connection.clone());
        Box::pin(async move {
            let is_read = request.method() == Method::GET;
            let request = request.map(|body| Body::new(Counted::new(body, connection.clone())));
            let mut response = match served.guard.check(&request) {
                Ok(()) => served.api.clone().oneshot(request).await?,
                Err(problem) => {
                    drop(request);
                    problem.into_response()
                }
            };
            // The request's body is gone, and the answer's is there.
            connection.release();
            let length = response.body().size_hint().lower() as usize;
            if !connection.take(0, length) && is_read {
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
