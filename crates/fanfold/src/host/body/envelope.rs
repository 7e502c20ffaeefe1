//! `[format][codec][key id]payload`: the envelope of every stored body.
//!
//! The format byte is the version of the payload's schema. The codec byte is the encoding of the payload. Its highest
//! bit is reserved for a key id (a length byte and the id): a later version may encrypt the bodies of a partition, and
//! erase them by deleting the key.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, Read};
use std::thread::LocalKey;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::get_frame_content_size;

use super::DecodeError;
use crate::host::limits::STREAM_RECORD_BYTES_MAX;

/// DynamoDB bills writes in units of this many bytes.
const WRITE_UNIT_BYTES: usize = 1024;
/// An estimate of the bytes of the item around the body: keys and other attributes. It only decides from which size on
/// compression saves anything.
const ITEM_OVERHEAD_BYTES: usize = 200;
/// No body is larger than a record of the command stream. A body that decompresses to more is not Fanfold's.
const PAYLOAD_BYTES_MAX: usize = 4 * STREAM_RECORD_BYTES_MAX;
/// The fastest of zstd's ordinary levels: bodies are written on the hot path.
const ZSTD_LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const HAS_KEY_ID: u8 = 0x80;

fn units(bytes: usize) -> usize {
    (ITEM_OVERHEAD_BYTES + bytes).div_ceil(WRITE_UNIT_BYTES)
}

/// Wraps a payload, compressed if that saves a write unit.
pub fn seal(format: u8, payload: &[u8]) -> Vec<u8> {
    if units(payload.len()) > 1
        && let Ok(compressed) = compress(payload)
        && units(compressed.len() + 2) < units(payload.len() + 2)
    {
        return wrap(format, ZSTD, &compressed);
    }
    wrap(format, PLAIN, payload)
}

fn wrap(format: u8, codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + 2);
    body.extend([format, codec]);
    body.extend_from_slice(payload);
    body
}

/// The payload of a body that must have the format `known`.
pub fn open(known: u8, body: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    let [found, codec, payload @ ..] = body else {
        return Err(DecodeError::Truncated);
    };
    if *found != known {
        return Err(DecodeError::Format { found: *found, known });
    }
    match *codec {
        PLAIN => Ok(Cow::Borrowed(payload)),
        ZSTD => decompress(payload).map(Cow::Owned).map_err(DecodeError::Compression),
        codec if codec & HAS_KEY_ID != 0 => Err(DecodeError::Encrypted),
        codec => Err(DecodeError::Codec { found: codec }),
    }
}

thread_local! {
    /// A compressor and a decompressor per thread: making one costs more than compressing with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A thread's compressor or decompressor, made on first use.
fn kept<T, R>(
    place: &'static LocalKey<RefCell<Option<T>>>,
    make: impl FnOnce() -> io::Result<T>,
    run: impl FnOnce(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    place.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) => kept,
            None => kept.insert(make()?),
        };
        run(kept)
    })
}

fn compress(payload: &[u8]) -> io::Result<Vec<u8>> {
    kept(&COMPRESSOR, || Compressor::new(ZSTD_LEVEL), |compressor| compressor.compress(payload))
}

fn decompress(payload: &[u8]) -> io::Result<Vec<u8>> {
    // Every frame that Fanfold writes has its content size.
    if let Ok(Some(bytes)) = get_frame_content_size(payload)
        && bytes <= PAYLOAD_BYTES_MAX as u64
        && let Ok(plain) =
            kept(&DECOMPRESSOR, Decompressor::new, |d| d.decompress(payload, bytes as usize))
    {
        return Ok(plain);
    }
    let mut plain = Vec::new();
    let limit = PAYLOAD_BYTES_MAX as u64 + 1;
    zstd::stream::read::Decoder::new(payload)?.take(limit).read_to_end(&mut plain)?;
    if plain.len() > PAYLOAD_BYTES_MAX {
        return Err(io::Error::other("more bytes than a body may hold"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sealed_payload_is_opened_unchanged(
            word in prop::collection::vec(any::<u8>(), 0..300), times in 0usize..40
        ) {
            let payload = word.repeat(times);
            let body = seal(1, &payload);
            prop_assert!(units(body.len()) <= units(payload.len() + 2));
            let opened = open(1, &body).unwrap().into_owned();
            prop_assert_eq!(opened, payload);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(1, &bytes);
        }
    }

    #[test]
    fn compression_is_used_only_where_it_saves_a_write_unit() {
        assert_eq!(seal(1, &[b'a'; 800])[1], PLAIN);
        assert_eq!(seal(1, &[b'a'; 900])[1], ZSTD);
    }

    #[test]
    fn a_payload_that_decompresses_to_too_much_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; PAYLOAD_BYTES_MAX + 1], 1).unwrap();
        let error = open(1, &wrap(1, ZSTD, &bomb)).unwrap_err();
        assert!(matches!(error, DecodeError::Compression(_)), "{error:?}");
    }

    #[test]
    fn foreign_bytes_have_errors_of_their_own() {
        for (body, message) in [
            (&[][..], "the body ends too early"),
            (&[2, 0], "the body has format 2, this build reads 1"),
            (&[1, 7], "the body has the unknown codec 7"),
            (&[1, 0x80, 1, 9], "the body is encrypted, which this build cannot read"),
        ] {
            assert_eq!(open(1, body).unwrap_err().to_string(), message);
        }
    }
}
