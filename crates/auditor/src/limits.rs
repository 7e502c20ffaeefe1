//! Limits of the API. They are written again and not imported, so that a target with other limits
//! fails.

/// Milliseconds of `?wait=` that every host allows: the default limit of a host on AWS.
pub const WAIT_MS_MAX: u64 = 5_000;
/// Entries or rows of a page, by the API.
pub const PAGE_MAX: u64 = 1_000;
/// Rows of a statement that a reader asks for during a run. This is our choice, and part of the
/// format of receipts.
pub const NEWEST_ROWS: usize = 10;
