//! What the API allows, in one place. Written again, and not taken from it: what a target does
//! otherwise is to be seen.

/// Milliseconds that `?wait=` may ask for on every host: one on AWS refuses more by default.
pub const WAIT_MS_MAX: u64 = 5_000;
/// Entries or rows of a page.
pub const PAGE_MAX: u64 = 1_000;
/// Rows of a statement that a reader asks for during a run: our own choice, which the file of
/// receipts is read by.
pub const NEWEST_ROWS: usize = 10;
