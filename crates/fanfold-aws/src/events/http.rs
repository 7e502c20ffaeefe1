use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use aws_lambda_events::encodings::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold_pipeline::timeline::Caller;
use http::{Request, Response, Uri};

use super::{WrongEvent, shape};

const EXPECTED: &str = "a request of an HTTP API (payload format 2.0)";

/// Decodes a request of an HTTP API.
///
/// API Gateway decodes the path, except `%25`, so it may contain characters that a URI cannot: those
/// are encoded again. A decoded slash stays a slash, which the routes accept. The body is text if the
/// content type says so, and base64 otherwise, such as for `curl -d`.
///
/// A caller that API Gateway has verified is the [`Caller`] in the request's extensions.
///
/// The crate `lambda_http` is not used: it takes a `?` that was `%3F` in the path for the beginning of
/// the query, and panics if a body is not base64, or a path not a URI.
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
    *request.uri_mut() =
        uri.map_err(|error| wrong(format!("has a path or query that is not valid: {error}")))?;
    *request.method_mut() = event.request_context.http.method;
    *request.headers_mut() = event.headers;
    // Verified by API Gateway, of a route with `AWS_IAM`.
    let caller =
        event.request_context.authorizer.and_then(|by| by.iam).and_then(|iam| iam.user_arn);
    if let Some(arn) = caller.filter(|arn| !arn.is_empty()) {
        request.extensions_mut().insert(Caller(arn));
    }
    Ok(request)
}

/// Encodes a response. Its body is text or base64, whichever is shorter as JSON: Lambda bounds the
/// length of an answer, and escapes could double that of a text.
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

/// The bytes of a text as a JSON string.
fn escaped_bytes(text: &str) -> usize {
    let more = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 1,
        byte if byte < b' ' => 5,
        _ => 0,
    });
    text.len() + more.sum::<usize>()
}

/// The path without the stage, which is its first segment unless it is the default stage.
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

/// Encodes characters that a URI cannot have, and those in `also`. Percent-encoded bytes stay.
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
