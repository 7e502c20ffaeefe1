//! Entries of a log, as soon as there are some.

use fanfold::host::knob::Knob;
use fanfold::{LogId, Seq};

use super::{HOLE_MS, LogError, LogPage, PAGE_BYTES, Reads};

/// The most entries of a page for a follower. Source: our choice; about what a commit of the largest
/// batch has.
const FOLLOWED_ENTRIES: Knob = Knob::new(500, 1);
/// A page for a follower ends with the commit that fills it up to this many bytes. A follower that
/// reads slowly keeps its page in memory. Source: our choice; small beside `PAGE_BYTES`, and more than
/// most reads of the journal return.
const FOLLOWED_BYTES: Knob = Knob::new(256 * 1024, 1_000);

impl Reads {
    /// As [`Reads::entries`]. If there is no entry at `from` or above, it waits up to `wait_ms`
    /// milliseconds for the first. The log need not have commands yet.
    pub async fn entries_awaited(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
        wait_ms: u64,
    ) -> Result<LogPage, LogError> {
        self.awaited(log, from, limit, PAGE_BYTES.get(), wait_ms).await
    }

    /// As [`Reads::entries_awaited`], with a page of a size for a follower that gets one after the
    /// other.
    pub async fn next_entries(
        &self,
        log: &LogId,
        from: Seq,
        wait_ms: u64,
    ) -> Result<LogPage, LogError> {
        self.awaited(log, from, FOLLOWED_ENTRIES.get(), FOLLOWED_BYTES.get(), wait_ms).await
    }

    async fn awaited(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
        bytes_max: usize,
        wait_ms: u64,
    ) -> Result<LogPage, LogError> {
        let until = self.ports.env.now().plus_ms(wait_ms);
        let mut looks = 0;
        loop {
            looks += 1;
            let page = self.page(log, from, limit, bytes_max).await?;
            match self.left(until) {
                ms if ms > 0 && page.entries.is_empty() => {
                    self.ports.waits.entry(log, from.max(Seq(1)), ms).await;
                    // After a wait the entry is there, unless the journal has a hole.
                    if looks > 1 {
                        self.ports.env.sleep(HOLE_MS.min(self.left(until))).await;
                    }
                }
                _ => return Ok(page),
            }
        }
    }
}
