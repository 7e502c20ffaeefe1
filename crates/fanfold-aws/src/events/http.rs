use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use aws_lambda_events::encodings::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response, Uri};

use super::{WrongEvent, shape};

const EXPECTED: &str = "a request of an HTTP API (payload format 2.0)";

/// Reads a request of an HTTP API.
///
/// API Gateway decodes the path (all but `%25`), so it may hold what no URI can: that is encoded
/// again. (What it has made a slash of stays one; the routes take both.) Text comes as it is if its
/// content type says that it is text; all else, as what `curl -d` sends, in base64.
///
/// The crate `lambda_http` would take a `?` that was `%3F` in the path for the beginning of the
/// query, and panics at what is no base64, or no URI.
pub fn http_request(event: &str) -> Result<Request<Bytes>, WrongEvent> {
    let wrong = |found| WrongEvent { expected: EXPECTED, found };
    let event: ApiGatewayV2httpRequest =
        serde_json::from_str(event).map_err(|error| wrong(shape(event, &error)))?;
    let body = event.body.unwrap_or_default();
    let body = if event.is_base64_encoded {
        let decoded = BASE64_STANDARD.decode(body);
        decoded.map_err(|error| wrong(format!("has a body that is no base64: {error}")))?.into()
    } else {
        Bytes::from(body)
    };
    let path = event.raw_path.unwrap_or_default();
    let stage = event.request_context.stage.unwrap_or_default();
    let uri = uri(without_stage(&path, &stage), &event.raw_query_string.unwrap_or_default());
    let mut request = Request::new(body);
    *request.uri_mut() = uri.map_err(|error| wrong(format!("has a path that is none: {error}")))?;
    *request.method_mut() = event.request_context.http.method;
    *request.headers_mut() = event.headers;
    Ok(request)
}

/// Makes an answer of a response. Its body goes as text or in base64, whichever is shorter as JSON:
/// what Lambda may answer is bounded, and a text of quotes would grow to twice its size.
pub fn http_response(response: Response<Bytes>) -> ApiGatewayV2httpResponse {
    let (parts, body) = response.into_parts();
    let text = std::str::from_utf8(&body).ok();
    let text = text.filter(|text| escaped_bytes(text) <= body.len().div_ceil(3) * 4);
    let mut answer = ApiGatewayV2httpResponse::default();
    answer.status_code = parts.status.as_u16().into();
    answer.headers = parts.headers;
    answer.is_base64_encoded = text.is_none();
    answer.body = Some(match text {
        Some(text) => Body::Text(text.to_owned()),
        None => Body::Binary(body.to_vec()),
    });
    answer
}

/// Bytes of a text in a JSON string.
fn escaped_bytes(text: &str) -> usize {
    let more = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 1,
        byte if byte < b' ' => 5,
        _ => 0,
    });
    text.len() + more.sum::<usize>()
}

/// A stage that is not the default one is the path's first part.
fn without_stage<'a>(path: &'a str, stage: &str) -> &'a str {
    let behind = path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
    match behind {
        Some(rest) if !stage.is_empty() && (rest.is_empty() || rest.starts_with('/')) => rest,
        _ => path,
    }
}

fn uri(path: &str, query: &str) -> Result<Uri, http::uri::InvalidUri> {
    let mut uri = String::with_capacity(path.len() + query.len() + 2);
    if !path.starts_with('/') {
        uri.push('/');
    }
    push_encoded(&mut uri, path, b"?#");
    if !query.is_empty() {
        uri.push('?');
        push_encoded(&mut uri, query, b"#");
    }
    uri.parse()
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
