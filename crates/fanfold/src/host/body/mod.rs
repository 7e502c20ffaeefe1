//! The formats of everything that is stored or sent. Each body has types of its own beside the domain's, a version, and
//! a golden file (`tests/golden/`).
//!
//! | body | where | payload |
//! |---|---|---|
//! | [`slot`] | the log's slot, attribute `b` | JSON array of commands |
//! | [`record`] | command stream | a log's slot bodies, unchanged, behind a JSON header |
//! | [`commit`] | journal, attribute `b` | JSON array of entries |
//! | [`head`] | state, the head item | JSON object: time, `prev`, windows |
//! | [`parked`] | parked table | JSON object: the reason, and the command |
//! | [`lease`] | parked table | JSON object: a call that has not returned |
//! | [`announced`] | table of views | JSON object: the versions of a view |
//! | [`action`] | timeline of operators | JSON object: what an operator did |
//! | [`notification`] | topic | CloudEvents 1.0 batch, no envelope |
//!
//! Keys inside are short where the body is billed by its size.

pub mod action;
pub mod announced;
pub mod commit;
pub mod envelope;
pub mod head;
pub mod lease;
pub mod notification;
pub mod parked;
pub mod record;
pub mod slot;

use serde::Deserialize;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is shorter than its lengths say.
    #[error("the body ends too early")]
    Truncated,
    /// A newer build wrote the body, or it is not Fanfold's.
    #[error("the body has format {found}, this build reads {known}")]
    Format {
        /// The format byte found.
        found: u8,
        /// The format that this build reads.
        known: u8,
    },
    /// The codec byte is unknown.
    #[error("the body has the unknown codec {found}")]
    Codec {
        /// The codec byte found.
        found: u8,
    },
    /// Encryption is reserved.
    #[error("the body is encrypted, which this build cannot read")]
    Encrypted,
    /// Decompression failed, or its result is larger than a body may be.
    #[error("the body cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// The payload is not JSON, or has other fields.
    #[error("the payload cannot be read")]
    Json(#[from] serde_json::Error),
    /// The payload contradicts itself.
    #[error("the payload contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// Reads JSON. Checking all of it for UTF-8 at once is faster than string by string.
fn read_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, DecodeError> {
    Ok(match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text)?,
        // This error names the place.
        Err(_) => serde_json::from_slice(json)?,
    })
}
