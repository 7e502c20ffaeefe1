//! The runtime API of one process, which takes one event at a time and answers it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

/// The longest answer to a synchronous invocation (Lambda's quota), in bytes.
const ANSWER_BYTES_MAX: usize = 6_291_556;

/// An invocation for the process.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) timeout_ms: u64,
    pub(crate) event: Bytes,
    /// Signals that the process has taken the job.
    pub(crate) taken: oneshot::Sender<()>,
}

/// A request of the process.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The answer to the invocation with this id.
    Answer { id: String, body: Bytes },
    /// The invocation with this id failed.
    Error { id: String, body: Bytes },
    /// The process cannot start.
    InitError(Bytes),
}

struct Shared {
    jobs: Mutex<mpsc::Receiver<Job>>,
    replies: mpsc::Sender<Reply>,
}

/// The runtime API of one process. Dropping it ends the server.
pub(crate) struct RuntimeApi {
    pub(crate) address: SocketAddr,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) replies: mpsc::Receiver<Reply>,
    server: JoinHandle<()>,
}

impl RuntimeApi {
    pub(crate) async fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (jobs, receiver) = mpsc::channel(1);
        let (sender, replies) = mpsc::channel(4);
        let shared = Arc::new(Shared { jobs: Mutex::new(receiver), replies: sender });
        let invocation = "/2018-06-01/runtime/invocation";
        let router = Router::new()
            .route(&format!("{invocation}/next"), get(next))
            .route(&format!("{invocation}/{{id}}/response"), post(answer))
            .route(&format!("{invocation}/{{id}}/error"), post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .layer(DefaultBodyLimit::max(ANSWER_BYTES_MAX))
            .with_state(shared);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "a runtime API has ended");
            }
        });
        Ok(Self { address, jobs, replies, server })
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    let Some(job) = shared.jobs.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let deadline_ms = now_ms + u128::from(job.timeout_ms);
    let trace = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0";
    let mut response = job.event.into_response();
    let headers = [
        ("lambda-runtime-aws-request-id", job.id),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", job.arn),
        ("lambda-runtime-trace-id", trace.to_owned()),
    ];
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    // The invocation may have been given up.
    let _ = job.taken.send(());
    response
}

async fn answer(state: State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response {
    reply(state, Reply::Answer { id, body }).await
}

async fn error(state: State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response {
    reply(state, Reply::Error { id, body }).await
}

async fn init_error(state: State<Arc<Shared>>, body: Bytes) -> Response {
    reply(state, Reply::InitError(body)).await
}

async fn reply(State(shared): State<Arc<Shared>>, reply: Reply) -> Response {
    match shared.replies.send(reply).await {
        Ok(()) => (StatusCode::ACCEPTED, r#"{"status":"OK"}"#).into_response(),
        Err(_) => StatusCode::GONE.into_response(),
    }
}
