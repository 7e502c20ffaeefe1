//! Standard error, which people read. Writing to it is best effort: a closed console, or a full
//! disk below it, must not make anything else fail. `println!` and `eprintln!` would panic.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes a line to standard error, and ignores errors.
pub(crate) fn print(line: impl Display) {
    // There is no other place to report the error.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether to write colours: standard error is a terminal, and the user has not set `NO_COLOR`
/// (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !unwanted
}

/// Standard error as a writer that never fails.
pub(crate) struct BestEffort;

impl Write for BestEffort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Reports the whole length even after an error, so that the caller does not write the rest
        // of the line alone.
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
