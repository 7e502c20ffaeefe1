//! The limits of the API itself; those of commands and names are in [`fanfold::limits`].

/// The longest `wait` that a host may allow, in milliseconds: API Gateway gives an integration 30 s
/// at most (HTTP APIs, quotas), and the answer needs some of it.
pub const WAIT_MS_MAX: u64 = 25_000;
/// The longest `wait` that every host allows unless its operator chose less, in milliseconds: what a
/// client asks for that does not know its host. On AWS a longer one costs more than the command
/// (`infra/README.md`).
pub const WAIT_MS_EVERYWHERE: u64 = 5_000;
/// Entries or rows of a page, if the caller does not say: more than people read at once.
pub const PAGE_DEFAULT: u64 = 100;
/// Entries or rows of a page at most: a bound for one answer.
pub const PAGE_MAX: u64 = 1_000;
