//! The OpenAPI 3.1 document of the API.

use fanfold::host::describe::{Description, ViewDescription};
use serde_json::{Map, Value, json};

use super::schemas::{after, components, id, name, partition, prefix, reference, row_key, seq};
use crate::events::EVENT_STREAM;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

/// The OpenAPI document of an app's API. Each service and each view has paths of its own, so that answers have its types.
/// `wait_ms_max`: the longest wait that the host allows, in milliseconds.
pub fn openapi(of: &Description, wait_ms_max: u64) -> Value {
    let mut paths = Map::new();
    paths.insert("/command".to_owned(), json!({ "post": one_command(wait_ms_max) }));
    paths.insert("/commands".to_owned(), json!({ "post": many_commands() }));
    paths.insert("/logs".to_owned(), logs());
    for service in of.services.keys() {
        paths.insert(format!("/logs/{service}/{{partition}}"), entries(service, wait_ms_max));
        paths.insert(format!("/logs/{service}/{{partition}}/{{seq}}"), entry(service, wait_ms_max));
    }
    paths.insert("/views".to_owned(), views());
    for (view, described) in &of.views {
        for service in &described.services {
            let path = format!("/views/{view}/{service}/{{partition}}");
            paths.insert(format!("{path}/{{row}}"), row(view, service, described, wait_ms_max));
            paths.insert(path, rows(view, service, described, wait_ms_max));
        }
    }
    for (path, id, summary, kind) in [
        ("/healthz", "health", "Whether the process answers", "application/json"),
        ("/readyz", "ready", "Whether the host takes requests", "application/json"),
        ("/metrics", "metrics", "Metrics for Prometheus; on AWS they are in CloudWatch", "*/*"),
        ("/openapi.json", "openapi", "This document", "application/json"),
        ("/asyncapi.json", "asyncapi", "What the topic's messages look like", "application/json"),
    ] {
        let content = json!({ kind: {} });
        let answers = answers(&[("200", json!({ "description": summary, "content": content }))]);
        let get = json!({ "operationId": id, "summary": summary, "tags": ["host"], "responses": answers });
        paths.insert(path.to_owned(), json!({ "get": get }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": of.app,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Commands are accepted with a position in the log of their organisation or user, and become \
                            entries there. Views fold entries into rows.",
        },
        "paths": paths,
        "components": { "schemas": components(of) },
    })
}

/// The answers of an operation: those given, and problems.
fn answers(given: &[(&str, Value)]) -> Value {
    let problem = |description: &str| {
        let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
        json!({ "description": description, "content": content })
    };
    let mut all: Map<String, Value> =
        given.iter().map(|(status, answer)| ((*status).to_owned(), answer.clone())).collect();
    all.insert("4XX".to_owned(), problem("The request is refused: `detail` says why."));
    all.insert("5XX".to_owned(), problem("The host failed: send the same request again."));
    Value::Object(all)
}

fn answer(description: &str, schema: &str) -> Value {
    let content = json!({ "application/json": { "schema": reference(schema) } });
    json!({ "description": description, "content": content })
}

/// Adds that a request with `Accept: text/event-stream` gets events, whose data are `what`.
fn with_events(answer: &mut Value, what: &str) {
    answer["content"][EVENT_STREAM] = json!({ "schema": {
        "type": "string",
        "description": format!(
            "Server-sent events, whose data are {what}. An event's id is a seq. The header `Last-Event-ID` \
             asks for those behind it."
        ),
    } });
}

fn in_path(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn in_query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn of_partition() -> Value {
    in_path("partition", "`org:<organisation>`, or `user:<user>`", partition())
}

fn wait(what: &str, wait_ms_max: u64) -> Value {
    let schema = json!({ "type": "integer", "minimum": 0, "maximum": wait_ms_max, "default": 0 });
    in_query("wait", &format!("How long to wait for {what}, in milliseconds"), schema)
}

fn raw() -> Value {
    let schema = json!({ "type": "boolean", "default": false });
    in_query("raw", "Show events as they are stored, instead of in their current versions", schema)
}

fn limit() -> Value {
    let schema =
        json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT });
    in_query("limit", "The most of a page", schema)
}

fn one_command(wait_ms_max: u64) -> Value {
    let mut receipt = answer("The command is accepted, and durable.", "Receipt");
    let location = json!({ "description": "Its entry, relative to this path", "schema": { "type": "string" } });
    receipt["headers"] = json!({ "Location": location });
    // An entry is of the command's service. Its own path has the type.
    let entry = json!({
        "description": "The entry, because `wait` was given and it was there in time.",
        "content": { "application/json": { "schema": { "type": "object", "required": ["log", "seq", "status"] } } },
    });
    json!({
        "operationId": "send",
        "summary": "Send one command",
        "tags": ["commands"],
        "parameters": [wait("the entry", wait_ms_max)],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": reference("Request") } },
        },
        "responses": answers(&[("200", entry), ("202", receipt)]),
    })
}

fn many_commands() -> Value {
    let items = json!({ "type": "array", "minItems": 1, "maxItems": 500, "items": { "anyOf": [reference("Request"), true] } });
    json!({
        "operationId": "sendMany",
        "summary": "Send commands: a JSON array, or one JSON object a line",
        "description": "A request that is not valid gets a problem in its place, and the others are taken.",
        "tags": ["commands"],
        "requestBody": { "required": true, "content": { "application/json": { "schema": items } } },
        "responses": answers(&[("202", answer("A receipt or a problem for each.", "Results"))]),
    })
}

fn entries(service: &str, wait_ms_max: u64) -> Value {
    let mut schema = answer(
        "A page of entries; with `user` and `id`, one entry.",
        &format!("Entries.{service}"),
    );
    let one = reference(&format!("Entry.{service}"));
    let page = schema["content"]["application/json"]["schema"].take();
    schema["content"]["application/json"]["schema"] = json!({ "anyOf": [page, one] });
    with_events(&mut schema, "one entry each");
    json!({ "get": {
        "operationId": format!("entries.{service}"),
        "summary": format!("Entries of a log of `{service}`, or the entry of a command's id"),
        "description": "`from` and `limit` ask for a page. `user`, `client` and `id` ask for the entry of the first \
                        command with this id, and exclude the others.",
        "tags": ["logs"],
        "parameters": [
            of_partition(),
            in_query("from", "The first seq of the page", seq(1)),
            limit(),
            in_query("user", "The user that sent the command", name()),
            in_query("client", "The client that numbered it", name()),
            in_query("id", "The command's id", id()),
            wait("that entry, or for the first of the page", wait_ms_max),
            raw(),
        ],
        "responses": answers(&[("200", schema), ("202", answer("It is not there yet.", "Pending"))]),
    } })
}

fn logs() -> Value {
    json!({ "get": {
        "operationId": "logs",
        "summary": "The logs, in no order of their names",
        "description": "A page may have few logs, or none, and yet a next page.",
        "tags": ["logs"],
        "parameters": [
            in_query("prefix", "What the names begin with, such as `service/org:a`", json!({ "type": "string" })),
            in_query("after", "The `next` of the page before, or empty", json!({ "type": "string" })),
            limit(),
        ],
        "responses": answers(&[("200", answer("A page of logs.", "Logs"))]),
    } })
}

fn entry(service: &str, wait_ms_max: u64) -> Value {
    let found = answer("The entry.", &format!("Entry.{service}"));
    json!({ "get": {
        "operationId": format!("entry.{service}"),
        "summary": format!("An entry of a log of `{service}`"),
        "tags": ["logs"],
        "parameters": [of_partition(), in_path("seq", "Its position", seq(1)), wait("it", wait_ms_max), raw()],
        "responses": answers(&[("200", found), ("202", answer("It is not there yet.", "Pending"))]),
    } })
}

fn views() -> Value {
    json!({ "get": {
        "operationId": "views",
        "summary": "The views that are served, also those of other apps",
        "tags": ["views"],
        "responses": answers(&[("200", answer("The views, by name.", "Views"))]),
    } })
}

/// The parameters by which a reader waits for a view, and the answer when it was not there in time.
fn waiting(described: &ViewDescription, wait_ms_max: u64) -> (Vec<Value>, Option<Value>) {
    if !described.can_be_awaited {
        return (vec![], None);
    }
    let reached = in_query("seq", "Answer once the view has reached this position", seq(1));
    (
        vec![reached, wait("that", wait_ms_max)],
        Some(answer("The view has not reached it yet.", "Pending")),
    )
}

fn rows(view: &str, service: &str, described: &ViewDescription, wait_ms_max: u64) -> Value {
    let (waiting, pending) = waiting(described, wait_ms_max);
    let mut parameters = vec![
        of_partition(),
        in_query("prefix", "What the keys begin with", prefix()),
        in_query("after", "The `next` of the page before, or empty", after()),
        limit(),
        in_query(
            "order",
            "The order of the keys",
            json!({ "enum": ["asc", "desc"], "default": "asc" }),
        ),
    ];
    parameters.extend(waiting);
    let mut page = answer("A page of rows.", &format!("Rows.{view}"));
    with_events(&mut page, "this page, whenever it has changed");
    let mut all = vec![("200", page)];
    all.extend(pending.map(|pending| ("202", pending)));
    json!({ "get": {
        "operationId": format!("rows.{view}.{service}"),
        "summary": format!("Rows of the view `{view}` for a log of `{service}`"),
        "tags": ["views"],
        "parameters": parameters,
        "responses": answers(&all),
    } })
}

fn row(view: &str, service: &str, described: &ViewDescription, wait_ms_max: u64) -> Value {
    let (waiting, pending) = waiting(described, wait_ms_max);
    let mut parameters = vec![of_partition(), in_path("row", "The row's key", row_key())];
    parameters.extend(waiting);
    let mut found = answer("The row.", &format!("OneRow.{view}"));
    with_events(&mut found, "the row, whenever it has changed, or a problem while there is none");
    let mut all = vec![("200", found)];
    all.extend(pending.map(|pending| ("202", pending)));
    json!({ "get": {
        "operationId": format!("row.{view}.{service}"),
        "summary": format!("A row of the view `{view}` for a log of `{service}`"),
        "tags": ["views"],
        "parameters": parameters,
        "responses": answers(&all),
    } })
}
