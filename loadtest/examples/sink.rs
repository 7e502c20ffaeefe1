//! A target that accepts every command and stores none: it measures the generator itself.
//!
//! ```sh
//! cargo run --release -p fanfold-loadtest --example sink -- 127.0.0.1:8079
//! cargo run --release -p fanfold-loadtest -- run --target http://127.0.0.1:8079 --rate 40000 --samples 0 --no-audit
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};

static SEQ: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .context("the argument is the address to listen on, such as 127.0.0.1:8079")?;
    let address: SocketAddr = address.parse().context("this is not an address")?;
    let routes = Router::new()
        .route("/command", post(one))
        .route("/commands", post(many))
        .route("/healthz", get(StatusCode::OK))
        .route("/readyz", get(StatusCode::OK))
        // A workload file asks whether its service is there.
        .route("/logs/{service}/{partition}", get(StatusCode::OK));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(axum::serve(listener, routes).await?)
    })
}

async fn one(body: Bytes) -> (StatusCode, String) {
    (StatusCode::ACCEPTED, receipt(&String::from_utf8_lossy(&body)))
}

async fn many(body: Bytes) -> (StatusCode, String) {
    let body = String::from_utf8_lossy(&body);
    let receipts: Vec<String> = body.split("},{").map(receipt).collect();
    (StatusCode::ACCEPTED, format!(r#"{{"results":[{}]}}"#, receipts.join(",")))
}

fn receipt(command: &str) -> String {
    let field = |name: &str| {
        let value = command.split(name).nth(1).and_then(|rest| rest.split('"').next());
        value.unwrap_or_default()
    };
    let (service, org) = (field(r#""type":""#), field(r#""org":""#));
    let seq = SEQ.fetch_add(1, Ordering::Relaxed) + 1;
    format!(r#"{{"log":"{service}/org:{org}","seq":{seq}}}"#)
}
