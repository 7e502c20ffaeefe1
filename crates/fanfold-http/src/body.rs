//! Request bodies. The router reads them whole, up to a limit, and as UTF-8; it ignores their content type.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, HeaderName, TRANSFER_ENCODING};
use bytes::{Buf, Bytes, BytesMut};
use fanfold::host::limits::REQUEST_BYTES_MAX;
use http_body_util::BodyExt;

use crate::problem::{Kind, Problem};

/// The byte-order mark that some editors and shells put before UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Codings that leave the body as it is. HTTP itself decodes `chunked`.
const IDENTITY_CODINGS: [&[u8]; 3] = [b"", b"identity", b"chunked"];

/// Reads the request's body, without a byte-order mark.
///
/// A body that comes in one piece, as small ones do, is not copied. Refuses a body that is
/// compressed, longer than [`REQUEST_BYTES_MAX`], incomplete, or in UTF-16 or UTF-32. If its
/// announced length is too long, nothing of it is read.
pub async fn read(request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    read_of(&parts.headers, body).await
}

/// As [`read`], of a request with these headers.
pub(crate) async fn read_of(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    check_codings(headers)?;
    text(collect(body).await?)
}

fn check_codings(headers: &HeaderMap) -> Result<(), Problem> {
    let of = |name: HeaderName| headers.get_all(&name).into_iter().map(move |v| (name.clone(), v));
    for (name, value) in of(CONTENT_ENCODING).chain(of(TRANSFER_ENCODING)) {
        let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let is_identity =
            |coding: &[u8]| IDENTITY_CODINGS.iter().any(|i| i.eq_ignore_ascii_case(coding));
        if let Some(coding) = codings.find(|coding| !is_identity(coding)) {
            let coding = String::from_utf8_lossy(coding);
            let detail = format!("`{name}`: is `{coding}`: send the body without compression");
            return Err(Problem::new(Kind::UNSUPPORTED_ENCODING, detail));
        }
    }
    Ok(())
}

async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    if announced > REQUEST_BYTES_MAX as u64 {
        return Err(too_large(announced));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(piece) = next(&mut body).await? {
        let length = first.len().max(all.len()) + piece.len();
        if length > REQUEST_BYTES_MAX {
            return Err(too_large(length as u64));
        }
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            // Grows by doubling, not to the announced length: the rest may never come.
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| Problem::new(Kind::INCOMPLETE_BODY, format!("the body broke off: {e}")))?;
        // A frame without data holds trailers, which have no meaning here.
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

fn too_large(at_least: u64) -> Problem {
    let detail =
        format!("the body has at least {at_least} bytes, at most {REQUEST_BYTES_MAX} are allowed");
    Problem::new(Kind::BODY_TOO_LARGE, detail)
}

/// Removes a UTF-8 byte-order mark, and refuses UTF-16 and UTF-32.
fn text(mut body: Bytes) -> Result<Bytes, Problem> {
    if body.starts_with(BYTE_ORDER_MARK) {
        body.advance(BYTE_ORDER_MARK.len());
    }
    // A wide encoding begins with its own byte-order mark, or has a zero byte beside each ASCII
    // character. JSON in UTF-8 has no zero byte.
    let is_wide = match body.first_chunk::<2>() {
        Some([0xFF, 0xFE] | [0xFE, 0xFF]) => true,
        Some([a, b]) => *a == 0 || *b == 0,
        None => false,
    };
    if is_wide {
        let detail = "the body is UTF-16 or UTF-32: send it as UTF-8";
        return Err(Problem::new(Kind::NOT_UTF8, detail));
    }
    Ok(body)
}

/// Refuses a body that is empty, or has nothing but white space.
pub fn not_empty(body: &[u8]) -> Result<(), Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::new(Kind::NOT_JSON, "the body is empty: it must be a JSON object"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::stream;

    use super::*;

    fn in_pieces(pieces: &[&[u8]]) -> Body {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[test]
    fn a_body_in_pieces_is_put_together() {
        for (pieces, whole) in
            [(&[][..], ""), (&[&b""[..], b"a", b""], "a"), (&[b"ab", b"c", b"", b"def"], "abcdef")]
        {
            let collected = block_on(collect(in_pieces(pieces))).expect("it is short");
            assert_eq!(collected, whole);
        }
    }

    #[test]
    fn the_limit_holds_with_and_without_an_announced_length() {
        let (most, more) = (vec![b' '; REQUEST_BYTES_MAX], vec![b' '; REQUEST_BYTES_MAX + 1]);
        assert!(block_on(collect(Body::from(most.clone()))).is_ok());
        assert!(block_on(collect(Body::from(more))).is_err());
        assert!(block_on(collect(in_pieces(&[&most]))).is_ok());
        assert!(block_on(collect(in_pieces(&[&most, b" "]))).is_err());
        assert!(block_on(collect(in_pieces(&[b" ", &most]))).is_err());
    }

    #[test]
    fn a_body_that_breaks_off_is_a_problem() {
        let broken = stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
        assert!(block_on(collect(Body::from_stream(broken))).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_wide_encodings_are_refused() {
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let utf32: Vec<u8> = "{}".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for (body, expected) in [
            (&b"{}"[..], Some(&b"{}"[..])),
            (b"\xEF\xBB\xBF{}", Some(b"{}")),
            (b"\xEF\xBB\xBF", Some(b"")),
            (b"\xEF\xBB", Some(b"\xEF\xBB")),
            (b"{", Some(b"{")),
            (&utf16, None),
            (&marked, None),
            (&utf32, None),
        ] {
            let read = text(Bytes::copy_from_slice(body));
            assert_eq!(read.ok().as_deref(), expected, "{body:?}");
        }
    }

    #[test]
    fn compressed_bodies_are_refused() {
        for (name, value, is_fine) in [
            ("content-encoding", "identity", true),
            ("content-encoding", "", true),
            ("content-encoding", "GZIP", false),
            ("content-encoding", "identity, br", false),
            ("transfer-encoding", "Chunked", true),
            ("transfer-encoding", "gzip, chunked", false),
        ] {
            let request = Request::builder().header(name, value).body(Body::from("{}"));
            let read = block_on(read(request.expect("it is a request")));
            assert_eq!(read.is_ok(), is_fine, "{name}: {value}");
        }
    }
}
