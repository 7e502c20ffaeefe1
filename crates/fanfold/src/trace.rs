//! The trace that a command belongs to, as W3C Trace Context writes it.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `<version>-<trace id>-<span id>-<flags>` in version `00`. Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
const TEXT_BYTES: usize = 55;
/// The flag that says that the caller records the trace. Source: the same page.
const SAMPLED: u8 = 1;

/// Where a command comes from, in a distributed trace: a trace, and the span in it that sent the command. It travels from
/// the request through slot, record, commit and notification, and nothing depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a `traceparent` is `00-<32 hexadecimal digits>-<16>-<2>` in lower case, and no id is only zeros"
)]
pub struct TraceParentError;

impl TraceParent {
    /// A span of a trace; `None` if an id is only zeros.
    pub fn new(trace: [u8; 16], span: [u8; 8], is_sampled: bool) -> Option<Self> {
        let is_valid = trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, flags: if is_sampled { SAMPLED } else { 0 } })
    }

    /// The trace's id.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// The span's id.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// Whether the sender records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Reads a field of a stored body. What this build cannot read counts as absent: no trace may stop a command.
    pub(crate) fn stored<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Self>, D::Error> {
        Ok(match Option::<Stored>::deserialize(source)? {
            Some(Stored::Text(text)) => text.parse().ok(),
            Some(Stored::Other(_)) | None => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(CompactString),
    Other(IgnoredAny),
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// Reads the header's value. Of a later version it reads what version `00` has, as the standard says.
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let (known, more) = text.split_at_checked(TEXT_BYTES).ok_or(TraceParentError)?;
        let mut parts = known.split('-');
        let mut next = || parts.next().ok_or(TraceParentError);
        let [version] = bytes(next()?)?;
        let (trace, span) = (bytes(next()?)?, bytes(next()?)?);
        let [flags] = bytes(next()?)?;
        let may_go_on = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let read = Self::new(trace, span, flags & SAMPLED != 0);
        read.filter(|_| may_go_on && parts.next().is_none()).ok_or(TraceParentError)
    }
}

/// Reads `2 * N` hexadecimal digits in lower case.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], TraceParentError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(TraceParentError),
    };
    let mut read = [0; N];
    if text.len() != 2 * N {
        return Err(TraceParentError);
    }
    for (byte, digits) in read.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Ok(read)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        target.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<String> {
        text.parse().ok().map(|read: TraceParent| read.to_string())
    }

    #[test]
    fn a_header_is_read_as_the_standard_says() {
        assert_eq!(read(TEXT).as_deref(), Some(TEXT));
        let is_sampled = |flags: &str| {
            let text = format!("{}{flags}", &TEXT[..53]);
            text.parse::<TraceParent>().map(|read| read.is_sampled())
        };
        let flags = [("00", false), ("01", true), ("02", false), ("ff", true)];
        for (flags, expected) in flags {
            assert_eq!(is_sampled(flags), Ok(expected), "{flags}");
        }
        let later = TEXT.replacen("00", "cc", 1);
        assert_eq!(read(&later).as_deref(), Some(TEXT), "what is known of a later version");
        assert_eq!(read(&format!("{later}-more")).as_deref(), Some(TEXT));
    }

    #[test]
    fn anything_else_is_refused() {
        let zeros = |from: usize, to: usize| {
            format!("{}{}{}", &TEXT[..from], "0".repeat(to - from), &TEXT[to..])
        };
        let wrong = [
            String::new(),
            TEXT[..54].to_owned(),
            format!("{TEXT}-more"),
            format!("{TEXT}0"),
            TEXT.to_uppercase(),
            TEXT.replacen("00", "ff", 1),
            TEXT.replace('-', "_"),
            format!("{}more", TEXT.replacen("00", "01", 1)),
            TEXT.replacen("4b", "4g", 1),
            TEXT.replacen("4b", "é", 1),
            zeros(3, 35),
            zeros(36, 52),
        ];
        for text in wrong {
            assert_eq!(text.parse::<TraceParent>(), Err(TraceParentError), "{text}");
        }
    }
}
