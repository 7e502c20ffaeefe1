//! Request bodies: read whole, up to a limit, whatever their content type.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use fanfold::limits::REQUEST_BYTES_MAX;
use http_body_util::BodyExt;

use crate::limits::DRAIN_BYTES_MAX;
use crate::problem::{Kind, Problem};

/// The body, if it is at most [`REQUEST_BYTES_MAX`] long. A body that came in one piece, as small
/// ones do, is not copied.
pub async fn read(mut body: Body) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    if announced > REQUEST_BYTES_MAX as u64 {
        return Err(too_large(body, announced).await);
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(piece) = next(&mut body).await? {
        let length = first.len().max(all.len()) + piece.len();
        if length > REQUEST_BYTES_MAX {
            return Err(too_large(body, length as u64).await);
        }
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.reserve(length.max(announced as usize));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| Problem::new(Kind::INCOMPLETE_BODY, format!("the body broke off: {e}")))?;
        // Trailers say nothing here.
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

async fn too_large(mut body: Body, at_least: u64) -> Problem {
    if body.size_hint().lower() <= DRAIN_BYTES_MAX {
        let mut drained = 0;
        while let Ok(Some(piece)) = next(&mut body).await
            && drained < DRAIN_BYTES_MAX
        {
            drained += piece.len() as u64;
        }
    }
    let detail = format!(
        "the body is at least {at_least} bytes long, at most {REQUEST_BYTES_MAX} are allowed"
    );
    Problem::new(Kind::BODY_TOO_LARGE, detail)
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
    fn pieces_are_put_together() {
        for (pieces, whole) in
            [(&[][..], ""), (&[&b""[..], b"a", b""], "a"), (&[b"ab", b"c", b"", b"def"], "abcdef")]
        {
            let read = block_on(read(in_pieces(pieces))).expect("it is short");
            assert_eq!(read, whole);
        }
    }

    #[test]
    fn the_limit_holds_announced_or_not() {
        let (most, more) = (vec![b' '; REQUEST_BYTES_MAX], vec![b' '; REQUEST_BYTES_MAX + 1]);
        assert!(block_on(read(Body::from(most.clone()))).is_ok());
        assert!(block_on(read(Body::from(more))).is_err());
        assert!(block_on(read(in_pieces(&[&most]))).is_ok());
        assert!(block_on(read(in_pieces(&[&most, b" "]))).is_err());
        assert!(block_on(read(in_pieces(&[b" ", &most]))).is_err());
    }

    #[test]
    fn a_body_that_breaks_off_is_a_problem() {
        let broken = stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
        assert!(block_on(read(Body::from_stream(broken))).is_err());
    }
}
