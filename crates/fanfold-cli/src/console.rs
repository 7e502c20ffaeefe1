//! What people read: standard error, and the greeting. Best effort: a console that is gone, or a
//! disk that is full beneath it, is no reason for anything else to fail. `println!` and `eprintln!`
//! would panic.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes a line to standard error.
pub fn tell(line: impl Display) {
    // There is no other place to say that it failed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether standard error understands colours, and wants them (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !unwanted
}

/// Standard error, to which everything can be written.
pub(crate) struct BestEffort;

impl Write for BestEffort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is lost is lost; a part of a line would only be confusing.
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
