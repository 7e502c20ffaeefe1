//! The limits of a host's connections, with their sources.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most connections, even if more files may be open. Source: ten thousand idle ones are
/// measured (`tests/it/hostile`), and 16,384 heads of [`BUFFER_BYTES_MAX`] are 256 MiB.
const CONNECTIONS_MAX: u64 = 16 * 1024;
/// Open files that are not connections. Source: fjall keeps up to 900 tables open (its
/// `max_cached_files`); the rest is for the command log, the runtime, and [`REFUSALS_MAX`].
const OTHER_FILES: u64 = 1_024;
/// New connections that are answered with 503 at the same time. More are closed without an answer.
/// Source: our choice.
pub(super) const REFUSALS_MAX: usize = 64;
/// Bytes of a connection's read buffer, and so of a request's head. Source: half of what nginx
/// allows (`large_client_header_buffers` is 4 of 8 KiB).
pub(super) const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body that are not counted. Source: the buffer that every connection has anyway.
pub(super) const UNCOUNTED_BYTES: usize = BUFFER_BYTES_MAX;

/// The limits of a host's connections. Tests make them small.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at the same time.
    pub connections_max: usize,
    /// The most bytes of request bodies that are read or worked on, and of answers that are
    /// written. The first 16 KiB of each do not count.
    pub body_bytes_max: usize,
    /// The longest time from a request's first byte to the end of its head.
    pub head: Duration,
    /// The longest time from the end of a request's head to the end of its body.
    pub body: Duration,
    /// The longest time between requests, and before the first.
    pub idle: Duration,
    /// The longest time without progress while an answer is written.
    pub write: Duration,
    /// How long a connection must have waited for its client before it can be evicted.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX as usize,
            // 64 bodies of the largest size: about what the engine processes in four seconds
            // (100,000 commands of 150 bytes a second, `docs/performance.md`).
            body_bytes_max: 64 * 1024 * 1024,
            // What haproxy's documentation advises for `timeout http-request`. A request's head
            // fits into a few packets.
            head: Duration::from_secs(10),
            // As long as API Gateway allows a request. The longest body, 1 MiB, then needs 280
            // kbit/s.
            body: Duration::from_secs(30),
            // nginx's `keepalive_timeout`. It is more than the 60 s after which load balancers
            // close, because the side that sends requests should be the one that closes.
            idle: Duration::from_secs(75),
            // Our choice: the same as for a body.
            write: Duration::from_secs(30),
            // A client that has begun a request sends the rest within a round trip.
            grace: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The default limits, but with no more connections than this process may open files. Raises
    /// the process's soft limit of files first, as far as allowed and useful: most systems set it
    /// to 1,024, for programs that use `select`.
    pub fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let wanted = CONNECTIONS_MAX + OTHER_FILES;
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let files = match limit.current {
            Some(current) if current < raised => {
                let new = Rlimit { current: Some(raised), maximum: limit.maximum };
                setrlimit(Resource::Nofile, new).map_or(current, |()| raised)
            }
            current => current.unwrap_or(wanted),
        };
        Self { connections_max: connections_max(files), ..Self::default() }
    }
}

/// How many connections fit into that many open files.
fn connections_max(files: u64) -> usize {
    // If there are few files, the store gets half of them: it closes tables that it has not used
    // for long.
    files.saturating_sub(OTHER_FILES).max(files / 2).min(CONNECTIONS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_open_files_for_the_store() {
        for (files, connections) in
            [(64, 32), (1_024, 512), (4_096, 3_072), (20_000, 16_384), (u64::MAX, 16_384)]
        {
            assert_eq!(connections_max(files), connections, "{files}");
        }
    }
}
