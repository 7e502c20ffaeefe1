//! The limits of the API itself; those of commands and names are in [`fanfold::host::limits`].

/// The longest `wait` that a host may allow, in milliseconds. Source: API Gateway ends an
/// integration of an HTTP API after 30 s (its quota), and the answer needs some of that time.
pub const WAIT_MS_MAX: u64 = 25_000;
/// The longest `wait`, in milliseconds, that every host allows unless its operator chose less. A
/// client for any host asks for no more. Source: on AWS a longer wait costs more than
/// the command (`infra/operate.md`).
pub const WAIT_MS_EVERYWHERE: u64 = 5_000;
/// The time after which `up` ends an answer of server-sent events, in milliseconds. Source: our choice;
/// it bounds how long a client holds a connection with one request, and one request more in ten
/// minutes costs nothing.
pub const STREAM_MS_MAX: u64 = 600_000;
/// Entries or rows of a page if the caller does not ask for a number. Source: our choice, more than
/// people read at once.
pub const PAGE_DEFAULT: u64 = 100;
/// The most entries or rows that a caller may ask for in one page. Source: our choice; `PAGE_BYTES`
/// of the reading side bounds an answer's size.
pub const PAGE_MAX: u64 = 1_000;
