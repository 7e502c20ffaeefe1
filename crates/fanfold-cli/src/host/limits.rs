//! What holds the host: the bounds of its connections.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections at most, however many files may be open: ten thousand idle ones are measured
/// (`tests/it/hostile`), and 16,384 heads of [`BUFFER_BYTES_MAX`] are 256 MiB.
const CONNECTIONS_MAX: u64 = 16 * 1024;
/// Files that are not connections: fjall keeps up to 900 tables open (its `max_cached_files`), the
/// rest is the command log, the runtime, and [`REFUSALS_MAX`].
const OTHER_FILES: u64 = 1_024;
/// New connections that are told at the same time that there is no room. More are closed at once.
pub(super) const REFUSALS_MAX: usize = 64;
/// Bytes of a connection's read buffer, and so of a request's head: what nginx takes
/// (`large_client_header_buffers` is 4 of 8 KiB), less than half of it.
pub(super) const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body that are not counted: as much as the buffer that every connection has anyway.
pub(super) const UNCOUNTED_BYTES: usize = BUFFER_BYTES_MAX;

/// The bounds. Tests make them small.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that are open at the same time.
    pub connections_max: usize,
    /// Bytes of all request bodies that are read or worked on, and of all answers that are written,
    /// where they are longer than 16 KiB each.
    pub body_bytes_max: usize,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// From the end of a request's head to the end of its body.
    pub body: Duration,
    /// Between requests, and before the first.
    pub idle: Duration,
    /// Without any progress while an answer is written.
    pub write: Duration,
    /// How long a connection is left alone that waits for its client, when its place or its memory
    /// is needed for others.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX as usize,
            // 64 bodies of the largest size: about what the engine works off in four seconds (100,000
            // commands of 150 bytes a second, `docs/performance.md`).
            body_bytes_max: 64 * 1024 * 1024,
            // The head of a request fits into a few packets. As haproxy's documentation advises for
            // `timeout http-request`.
            head: Duration::from_secs(10),
            // The longest body, 1 MiB, at 280 kbit/s; as long as API Gateway gives a request.
            body: Duration::from_secs(30),
            // nginx's `keepalive_timeout`. More than the 60 s for which load balancers keep a
            // connection: the side that sends requests should be the one that closes.
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            // A client that is there sends the rest of what it has begun within a round trip.
            grace: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// These, with no more connections than this process may have open files. Raises its soft limit
    /// as far as that is allowed and of use: it is 1,024 in most places, for programs that use
    /// `select`.
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
    // With few, the store gets half: it closes tables that it has not used for long.
    files.saturating_sub(OTHER_FILES).max(files / 2).min(CONNECTIONS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_the_store() {
        for (files, connections) in
            [(64, 32), (1_024, 512), (4_096, 3_072), (20_000, 16_384), (u64::MAX, 16_384)]
        {
            assert_eq!(connections_max(files), connections, "{files}");
        }
    }
}
