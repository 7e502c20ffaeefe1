//! Text from outside before it is shown, and showing it.

use std::io::{self, Write};

/// Longer texts are cut here.
const CHARS_MAX: usize = 600;
/// Bytes that so many characters can have.
const BYTES_MAX: usize = 4 * CHARS_MAX;

/// On one line, not without end, and without what would steer a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The same of what may be no text.
pub(crate) fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX + 1)]))
}

/// A line on standard output, if that can be written: the receipts, the report's files and the exit
/// code do not depend on it.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line on standard error, likewise.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_steers_nothing() {
        assert_eq!(shown("a\u{1b}[31mred\nb\u{9b}c"), "a [31mred b c");
        let long = "é".repeat(100_000);
        assert_eq!(shown(&long).chars().count(), CHARS_MAX + 1);
        assert_eq!(shown_bytes(long.as_bytes()), shown(&long));
        assert_eq!(shown_bytes(b"\xff"), "\u{fffd}");
    }
}
