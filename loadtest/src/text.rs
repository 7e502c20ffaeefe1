//! Prepares text from outside for display, and prints it.

use std::io::{self, Write};

/// The maximum length of a shown text.
const CHARS_MAX: usize = 600;
/// The maximum number of bytes of that many characters.
const BYTES_MAX: usize = 4 * CHARS_MAX;

/// The text on one line, cut, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The same for bytes that may not be text.
pub(crate) fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX + 1)]))
}

/// Prints a line to standard output. Failures are ignored: the receipts, the report's files and the
/// exit code do not depend on it.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line to standard error. Failures are ignored, too.
pub(crate) fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_cut_and_has_no_control_characters() {
        assert_eq!(shown("a\u{1b}[31mred\nb\u{9b}c"), "a [31mred b c");
        let long = "é".repeat(100_000);
        assert_eq!(shown(&long).chars().count(), CHARS_MAX + 1);
        assert_eq!(shown_bytes(long.as_bytes()), shown(&long));
        assert_eq!(shown_bytes(b"\xff"), "\u{fffd}");
    }
}
