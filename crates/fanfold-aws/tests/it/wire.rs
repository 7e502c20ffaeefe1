//! A wire between the SDK and DynamoDB that passes calls on, except those that a test lets fail.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A fault of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// No fault: the faults ordered after it are for later calls.
    None,
    /// The request is lost, and there is no answer.
    LoseRequest,
    /// The call is executed, but its answer is lost.
    LoseAnswer,
    /// The call is not executed, and its answer is an error with this status and code.
    Answer(u16, &'static str),
    /// Only this many of the requested keys are read; the answer lists the others as unprocessed.
    OnlyKeys(usize),
}

/// A call that was seen, with its operation, table and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) operation: String,
    pub(crate) table: String,
    pub(crate) at: Instant,
}

struct Order {
    operation: &'static str,
    table: String,
    trouble: Trouble,
    left: usize,
}

#[derive(Clone)]
pub(crate) struct Wire {
    to_dynamodb: SharedHttpClient,
    orders: Arc<Mutex<Vec<Order>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let to_dynamodb = Builder::new().build_http();
        Self { to_dynamodb, orders: Arc::default(), seen: Arc::default() }
    }

    /// Lets the next `times` calls of the operation on the table have this fault.
    pub(crate) fn trouble(
        &self,
        operation: &'static str,
        table: &str,
        times: usize,
        trouble: Trouble,
    ) {
        let order = Order { operation, table: table.to_owned(), trouble, left: times };
        self.orders.lock().unwrap().push(order);
    }

    /// The calls seen since the last time.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The number of calls of an operation on a table since the last time.
    pub(crate) fn count(&self, operation: &str, table: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|call| call.operation == operation && call.table == table).count()
    }

    fn next(&self, operation: &str, table: &str) -> Option<Trouble> {
        let mut orders = self.orders.lock().unwrap();
        let order = orders
            .iter_mut()
            .find(|order| order.left > 0 && order.operation == operation && order.table == table)?;
        order.left -= 1;
        Some(order.trouble)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let to_dynamodb = self.to_dynamodb.http_connector(settings, components);
        SharedHttpConnector::new(Connector { to_dynamodb, wire: self.clone() })
    }
}

#[derive(Debug)]
struct Connector {
    to_dynamodb: SharedHttpConnector,
    wire: Wire,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let asked = body_of(&request);
        let table = match &asked["TableName"] {
            Value::String(table) => table.clone(),
            _ => asked["RequestItems"]
                .as_object()
                .and_then(|tables| tables.keys().next().cloned())
                .unwrap_or_default(),
        };
        let trouble = self.wire.next(&operation, &table);
        let at = Instant::now();
        self.wire.seen.lock().unwrap().push(Seen { operation, table: table.clone(), at });
        let to_dynamodb = self.to_dynamodb.clone();
        HttpConnectorFuture::new(async move {
            match trouble {
                None | Some(Trouble::None) => to_dynamodb.call(request).await,
                Some(Trouble::LoseRequest) => std::future::pending().await,
                Some(Trouble::LoseAnswer) => {
                    let answer = to_dynamodb.call(request).await?;
                    assert!(answer.status().is_success(), "the call was executed");
                    std::future::pending().await
                }
                Some(Trouble::Answer(status, code)) => Ok(error(status, code)),
                Some(Trouble::OnlyKeys(keys)) => {
                    Ok(only_keys(&to_dynamodb, request, asked, &table, keys).await)
                }
            }
        })
    }
}

fn body_of(request: &HttpRequest) -> Value {
    let body = request.body().bytes().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_default()
}

fn error(status: u16, code: &str) -> HttpResponse {
    let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
                      "message": "the test says so"});
    response(status, &body)
}

fn response(status: u16, body: &Value) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), body.to_string().into())
}

/// Lists all but the first keys as unprocessed, as DynamoDB does without capacity or if the answer would
/// be too large.
async fn only_keys(
    to_dynamodb: &SharedHttpConnector,
    mut request: HttpRequest,
    mut asked: Value,
    table: &str,
    keys: usize,
) -> HttpResponse {
    let asked_keys = &mut asked["RequestItems"][table]["Keys"];
    let mut processed: Vec<Value> = asked_keys.as_array().unwrap().clone();
    let unprocessed = processed.split_off(keys);
    assert!(!unprocessed.is_empty(), "something is left out");
    if processed.is_empty() {
        return response(200, &json!({"Responses": {}, "UnprocessedKeys": asked["RequestItems"]}));
    }
    *asked_keys = Value::Array(processed);
    let body = asked.to_string();
    request.headers_mut().insert("content-length", body.len().to_string());
    *request.body_mut() = body.into();
    let answer = to_dynamodb.call(request).await.unwrap().into_body().collect().await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer.to_bytes()).unwrap();
    let mut left = asked["RequestItems"].clone();
    left[table]["Keys"] = Value::Array(unprocessed);
    answer["UnprocessedKeys"] = left;
    response(200, &answer)
}
