//! Answers in JSON.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::problem::{Kind, Problem};

/// An answer whose body is `value` as JSON. If it cannot be encoded, the problem is
/// [`Kind::INTERNAL`].
pub fn answer(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    Ok(written(status, encode(value)?))
}

/// `value` as JSON.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|e| Problem::new(Kind::INTERNAL, format!("the answer cannot be written: {e}")))
}

/// An answer whose body is this JSON.
pub(crate) fn written(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = HttpResponse::new(json.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Stored JSON, to be put into an answer unchanged. `what` names it in the problem if it is not JSON.
pub(crate) fn stored<'a>(what: &str, json: &'a [u8]) -> Result<&'a RawValue, Problem> {
    serde_json::from_slice(json)
        .map_err(|e| Problem::new(Kind::INTERNAL, format!("{what} is not stored as JSON: {e}")))
}
