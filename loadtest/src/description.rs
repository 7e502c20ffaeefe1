//! What a target says about its services: its OpenAPI document.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value};

use auditor::http::{HttpError, Target};

/// The path of the document.
const PATH: &str = "/openapi.json";
/// The timeout of its answer. A host makes the document once, within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// References that are followed, one after another: more than any generated schema has.
const DEPTH_MAX: usize = 8;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDescription {
    #[error("cannot read {url}{PATH}")]
    Http { url: String, source: HttpError },
    #[error("{url}{PATH} answers {status}")]
    Status { url: String, status: StatusCode },
    #[error("the target's {PATH} is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the target's {PATH} has no schemas")]
    NoSchemas,
    #[error("the target's {PATH} describes no service")]
    NoService,
}

impl NoDescription {
    /// Whether the target describes itself in another way, or not at all.
    pub(crate) fn is_of_another_kind(&self) -> bool {
        match self {
            Self::Http { .. } => false,
            Self::Status { status, .. } => *status == StatusCode::NOT_FOUND,
            Self::NotJson(_) | Self::NoSchemas | Self::NoService => true,
        }
    }
}

/// Gets the document of a target.
pub(crate) async fn fetch(target: &Target) -> Result<Value, NoDescription> {
    let url = || target.url().to_owned();
    let answer = target.get(PATH, TIMEOUT).await;
    let answer = answer.map_err(|source| NoDescription::Http { url: url(), source })?;
    if answer.status != StatusCode::OK {
        return Err(NoDescription::Status { url: url(), status: answer.status });
    }
    serde_json::from_slice(&answer.body).map_err(NoDescription::NotJson)
}

/// The parts of a document that a load needs.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    document: &'a Value,
    pub(crate) schemas: &'a Map<String, Value>,
    /// In alphabetical order.
    pub(crate) services: Vec<&'a str>,
}

impl<'a> Description<'a> {
    /// Reads a document.
    pub(crate) fn of(document: &'a Value) -> Result<Self, NoDescription> {
        let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
        let schemas = schemas.ok_or(NoDescription::NoSchemas)?;
        let mut services: Vec<&str> =
            schemas.keys().filter_map(|name| name.strip_prefix("Entry.")).collect();
        services.sort_unstable();
        match services.is_empty() {
            true => Err(NoDescription::NoService),
            false => Ok(Self { document, schemas, services }),
        }
    }

    /// The commands of a service, each with the schema of its data.
    pub(crate) fn commands(&self, service: &str) -> BTreeMap<&'a str, &'a Value> {
        let begin = format!("Request.{service}.");
        let commands = self.schemas.iter().filter_map(|(key, schema)| {
            let data = schema.pointer("/properties/data")?;
            let constant = |field: &str| schema.pointer(field).and_then(Value::as_str);
            // A key spells characters in another way that it cannot have.
            let of = constant("/properties/type/const").zip(constant("/properties/command/const"));
            match of {
                Some((of, name)) => (of == service).then_some((name, data)),
                None => Some((key.strip_prefix(&begin)?, data)),
            }
        });
        commands.collect()
    }

    /// The views of a service that can be awaited, by the paths of their rows.
    pub(crate) fn views(&self, service: &str) -> Vec<&'a str> {
        let paths = self.document.get("paths").and_then(Value::as_object).into_iter().flatten();
        let end = format!("/{service}/{{partition}}");
        let views = paths.filter_map(|(path, of)| {
            let view = path.strip_prefix("/views/")?.strip_suffix(&end)?;
            let parameters = of.pointer("/get/parameters").and_then(Value::as_array)?;
            parameters.iter().any(|parameter| parameter["name"] == "seq").then_some(view)
        });
        views.collect()
    }

    /// The schema of an object, without the alternative `null` and behind its references.
    pub(crate) fn object(&self, schema: &'a Value) -> &'a Value {
        let schema = resolved(self.schemas, schema);
        let Some(all) = schema.get("anyOf").and_then(Value::as_array) else { return schema };
        let mut objects = all.iter().filter(|one| one["type"] != "null");
        match (objects.next(), objects.next()) {
            (Some(only), None) => resolved(self.schemas, only),
            _ => schema,
        }
    }

    /// A schema as a document of its own: the references in it find the others.
    pub(crate) fn whole(&self, schema: &Value) -> Value {
        let mut whole = schema.clone();
        if let Some(members) = whole.as_object_mut() {
            members.insert("components".to_owned(), self.document["components"].clone());
        }
        whole
    }
}

/// Follows references.
pub(crate) fn resolved<'a>(schemas: &'a Map<String, Value>, mut schema: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        let name = schema.get("$ref").and_then(Value::as_str);
        let Some(name) = name.and_then(|of| of.strip_prefix("#/components/schemas/")) else {
            // A reference with a description beside it.
            match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([only]) => schema = only,
                _ => break,
            }
            continue;
        };
        match schemas.get(name) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}
