//! `GET /openapi.json` and `GET /asyncapi.json`: the API and the notification, with the app's own commands, events and
//! rows.

mod asyncapi;
mod openapi;
mod schemas;

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanfold::App;
use fanfold::host::describe::{DEFINITIONS, Description, map_references};
use serde_json::Value;

pub use self::asyncapi::asyncapi;
pub use self::openapi::openapi;
use crate::Api;
use crate::params::Query;
use crate::problem::Problem;

/// Where the documents have the schemas to which others refer.
const COMPONENTS: &str = "#/components/schemas/";

/// The descriptions of an app, each made when it is first asked for. Clones share them.
#[derive(Clone)]
pub struct Described(Arc<Lazy>);

struct Lazy {
    app: App,
    openapi: OnceLock<Bytes>,
    asyncapi: OnceLock<Bytes>,
}

impl Described {
    /// Of this app.
    pub fn new(app: App) -> Self {
        Self(Arc::new(Lazy { app, openapi: OnceLock::new(), asyncapi: OnceLock::new() }))
    }
}

/// Handles `GET /openapi.json`.
pub(crate) async fn show_openapi(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Lazy { app, openapi: made, .. } = &*api.described.0;
    show(query.as_deref(), made, || openapi(&app.describe(), api.wait_ms_max))
}

/// Handles `GET /asyncapi.json`.
pub(crate) async fn show_asyncapi(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Lazy { app, asyncapi: made, .. } = &*api.described.0;
    show(query.as_deref(), made, || asyncapi(&app.describe()))
}

fn show(
    query: Option<&str>,
    made: &OnceLock<Bytes>,
    make: impl FnOnce() -> Value,
) -> Result<Response, Problem> {
    Query::parse(query, &[])?;
    let document = made.get_or_init(|| make().to_string().into()).clone();
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document).into_response())
}

/// The key of a component, which has only letters, digits, `.`, `_` and `-` of ASCII. Names of commands and event types may
/// have others.
fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => key.push(character),
            other => {
                // Writing into a string cannot fail.
                let _ = write!(key, ".{:x}.", u32::from(other));
            }
        }
    }
    key
}

/// The key of a definition of the description. The API's own components have other keys.
fn key_of_definition(name: &str) -> String {
    key(&format!("Type.{name}"))
}

/// The schema, which refers to definitions of the description, as part of a document.
fn placed(schema: &Value) -> Value {
    let mut placed = schema.clone();
    map_references(&mut placed, &|reference| match reference.strip_prefix(DEFINITIONS) {
        Some(name) => format!("{COMPONENTS}{}", key_of_definition(name)),
        None => reference.to_owned(),
    });
    placed
}

/// The definitions of the description to which these schemas refer, as components.
fn definitions<'a>(
    of: &'a Description,
    used: impl IntoIterator<Item = &'a Value>,
) -> impl Iterator<Item = (String, Value)> {
    let referred = of.referred(used).into_iter();
    referred.map(|(name, schema)| (key_of_definition(name), placed(schema)))
}
