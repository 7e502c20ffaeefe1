//! Answers that are written without hyper, to clients that are not served.

use fanfold_http::problem::Problem;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// The refusal in HTTP/2's frames: empty settings, and a GOAWAY with HTTP_1_1_REQUIRED (RFC 9113,
/// 6.5, 6.8 and 7).
pub(super) const NO_HTTP2: &[u8] = b"\
\0\0\0\x04\0\0\0\0\0\
\0\0\x19\x07\0\0\0\0\0\
\0\0\0\0\0\0\0\x0d\
use HTTP/1.1 here";

/// Whether the client uses HTTP/2 with prior knowledge, that is without an upgrade.
pub(super) fn is_http2(begin: &[u8]) -> bool {
    begin.starts_with(HTTP2)
}

/// The problem as an answer of HTTP/1.1, after which the connection is closed.
pub(super) fn answer(problem: &Problem) -> Vec<u8> {
    let body = problem.to_json();
    let status = problem.status();
    let mut head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    );
    if let Some(seconds) = problem.retry_after_s() {
        head.push_str(&format!("retry-after: {seconds}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut answer = head.into_bytes();
    answer.extend_from_slice(&body);
    answer
}

#[cfg(test)]
mod tests {
    use fanfold_http::problem::Kind;

    use super::*;

    #[test]
    fn the_lengths_of_the_http2_frames_are_right() {
        let (mut left, mut kinds) = (NO_HTTP2, Vec::new());
        while let [a, b, c, kind, rest @ ..] = left {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            kinds.push(*kind);
            // Skips the flags and the stream's id.
            left = &rest[5 + length..];
        }
        assert_eq!((kinds, left), (vec![4, 7], &b""[..]));
    }

    #[test]
    fn an_answer_has_status_headers_and_the_length_of_its_body() {
        let problem = Problem::new(Kind::OVERLOADED, "no room").retry_after(1);
        let answer = String::from_utf8(answer(&problem)).expect("it is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
    }
}
