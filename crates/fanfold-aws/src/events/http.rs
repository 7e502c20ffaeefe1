use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{WrongEvent, shape};

const EXPECTED: &str = "a request of an HTTP API (payload format 2.0)";

/// A request as API Gateway describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// Path and query; always a valid URI.
    pub uri: String,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
}

/// What API Gateway is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    status_code: u16,
    headers: BTreeMap<String, String>,
    body: String,
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    raw_path: Cow<'a, str>,
    #[serde(borrow, default)]
    raw_query_string: Cow<'a, str>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(default)]
    is_base64_encoded: bool,
    #[serde(borrow)]
    request_context: RequestContext<'a>,
}

#[derive(Deserialize)]
struct RequestContext<'a> {
    #[serde(borrow, default)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    http: Http<'a>,
}

#[derive(Deserialize)]
struct Http<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
}

/// Reads a request of an HTTP API.
///
/// API Gateway decodes the path (all but `%25`), so it may hold what no URI can: that is encoded
/// again. (What it has made a slash of stays one; the routes take both.) Text comes as it is if its
/// content type says that it is text; all else, as what `curl -d` sends, in base64.
pub fn http_request(event: &str) -> Result<HttpRequest, WrongEvent> {
    let wrong = |found| WrongEvent { expected: EXPECTED, found };
    let Event { raw_path, raw_query_string, headers, body, is_base64_encoded, request_context } =
        serde_json::from_str(event).map_err(|error| wrong(shape(event, &error)))?;
    let body = body.unwrap_or_default();
    let body = if is_base64_encoded {
        let decoded = BASE64_STANDARD.decode(&*body);
        decoded.map_err(|error| wrong(format!("has a body that is no base64: {error}")))?.into()
    } else {
        Bytes::from(body.into_owned())
    };
    let mut uri = String::with_capacity(raw_path.len() + raw_query_string.len() + 1);
    push_encoded(&mut uri, without_stage(&raw_path, &request_context.stage), b"?#");
    if !uri.starts_with('/') {
        uri.insert(0, '/');
    }
    if !raw_query_string.is_empty() {
        uri.push('?');
        push_encoded(&mut uri, &raw_query_string, b"#");
    }
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let method = request_context.http.method.into_owned();
    Ok(HttpRequest { method, uri, headers: headers.collect(), body })
}

/// Makes an answer. Bytes that are no text go in base64.
pub fn http_response(
    status_code: u16,
    headers: BTreeMap<String, String>,
    body: &[u8],
) -> HttpResponse {
    let (body, is_base64_encoded) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64_STANDARD.encode(body), true),
    };
    HttpResponse { status_code, headers, body, is_base64_encoded }
}

/// A stage that is not the default one is the path's first part.
fn without_stage<'a>(path: &'a str, stage: &str) -> &'a str {
    let behind = path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
    match behind {
        Some(rest) if !stage.is_empty() && (rest.is_empty() || rest.starts_with('/')) => rest,
        _ => path,
    }
}

/// Encodes what is not allowed in a URI, and what is in `also`; what is encoded already stays.
fn push_encoded(uri: &mut String, text: &str, also: &[u8]) {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_escape = || {
            let digits = bytes.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let is_allowed = match byte {
            b'%' => is_escape(),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic() && !also.contains(byte),
        };
        if is_allowed {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
}
