//! What the API allows, in one place. Written again, and not taken from it: what a target does
//! otherwise is to be seen.

/// Bytes of a command.
pub(crate) const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Commands of a request.
pub(crate) const REQUEST_COMMANDS_MAX: usize = 500;
/// Bytes of a request.
pub(crate) const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Milliseconds that `?wait=` may ask for on every host: one on AWS refuses more by default.
pub(crate) const WAIT_MS_MAX: u64 = 5_000;
/// Entries or rows of a page.
pub(crate) const PAGE_MAX: u64 = 1_000;
/// Rows of a statement that a reader asks for during a run: our own choice, which the file of
/// receipts is read by.
pub(crate) const NEWEST_ROWS: usize = 10;
