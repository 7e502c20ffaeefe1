//! Reads the parked table page by page. What waits for an operator stays there, and must not hide
//! what lies behind it, unless it is so much that the log is in alarm anyway.

use fanfold::{LogId, Seq};

use crate::ports::{ParkedItem, ParkedTable, Unavailable};

/// After so many items a walk ends. Source: our choice. A log with so many that wait for an operator
/// has been in alarm for long.
const LISTED_MAX: usize = 10_000;
/// After the page that reaches so many bytes of bodies a walk ends. Source: our choice. 10,000
/// commands of 2 KiB have about 20 MiB.
const LISTED_BYTES_MAX: usize = 20 * 1024 * 1024;

/// The parked items of a log, by seq and then identity, until [`LISTED_MAX`] items or
/// [`LISTED_BYTES_MAX`].
pub(crate) struct ParkedPages<'a> {
    table: &'a dyn ParkedTable,
    log: &'a LogId,
    per_page: usize,
    /// Where the next page begins.
    from: (Seq, String),
    listed: usize,
    listed_bytes: usize,
    is_whole: bool,
}

impl<'a> ParkedPages<'a> {
    /// Pages of `per_page` items, from `from` on.
    pub(crate) fn new(
        table: &'a dyn ParkedTable,
        log: &'a LogId,
        from: Seq,
        per_page: usize,
    ) -> Self {
        let from = (from, String::new());
        Self { table, log, per_page, from, listed: 0, listed_bytes: 0, is_whole: false }
    }

    /// Whether the last page was the end. If not, a caller that needs what is above the tail begins
    /// again there.
    pub(crate) fn are_whole(&self) -> bool {
        self.is_whole
    }

    /// The next page; `None` if the last one was the end, or enough was listed.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<ParkedItem>>, Unavailable> {
        let has_enough = self.listed >= LISTED_MAX || self.listed_bytes >= LISTED_BYTES_MAX;
        if self.is_whole || has_enough {
            return Ok(None);
        }
        let (seq, identity) = &self.from;
        let items = self.table.list(self.log, (*seq, identity), self.per_page).await?;
        self.is_whole = items.len() < self.per_page;
        self.listed += items.len();
        self.listed_bytes += items.iter().map(|item| item.body.len()).sum::<usize>();
        if let Some(last) = items.last() {
            // No other text is between an identity and the same with a zero character.
            let next = (last.seq, format!("{}\0", last.identity));
            // The key of a damaged item cannot be read, so the next page could begin before this one.
            if next <= self.from {
                self.listed = LISTED_MAX;
            }
            self.from = next;
        }
        Ok(Some(items))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use futures::executor::block_on;

    use super::*;

    /// What is parked, by seq and identity. Each body has `bytes` bytes.
    struct Table {
        parked: Mutex<BTreeSet<(u64, &'static str)>>,
        bytes: usize,
    }

    impl Table {
        fn items(&self) -> Vec<(u64, &'static str)> {
            self.parked.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
        }

        fn remove(&self, item: (u64, &'static str)) {
            self.parked.lock().unwrap_or_else(PoisonError::into_inner).remove(&item);
        }
    }

    #[async_trait]
    impl ParkedTable for Table {
        async fn park(&self, _: &LogId, _: &ParkedItem) -> Result<(), Unavailable> {
            unreachable!("pages only read")
        }

        async fn list(
            &self,
            _: &LogId,
            (from, above): (Seq, &str),
            limit: usize,
        ) -> Result<Vec<ParkedItem>, Unavailable> {
            let items = self.items().into_iter().filter(|item| *item >= (from.0, above));
            let item = |(seq, identity): (u64, &str)| ParkedItem {
                seq: Seq(seq),
                identity: identity.to_owned(),
                body: vec![0; self.bytes].into(),
            };
            Ok(items.take(limit).map(item).collect())
        }

        async fn remove(&self, _: &LogId, _: Seq, _: &str) -> Result<(), Unavailable> {
            unreachable!("pages only read")
        }
    }

    const ALL: [(u64, &str); 7] =
        [(0, "attempt"), (1, "a"), (1, "b"), (1, "c"), (2, "a"), (5, "a"), (5, "b")];

    /// Every set of seven items, in pages of every size, from every seq on, while another process
    /// removes what was read, or nothing: each item is read once, and in order.
    #[test]
    fn every_item_is_read_once() {
        let log = "ledger/org:acme".parse().expect("a log");
        for set in 0..1_u32 << ALL.len() {
            let items = ALL.into_iter().enumerate().filter(|(i, _)| set & 1 << i != 0);
            let items: Vec<(u64, &str)> = items.map(|(_, item)| item).collect();
            for (per_page, from, removes) in
                (1..=8).flat_map(|n| (0..=6).flat_map(move |f| [(n, f, false), (n, f, true)]))
            {
                let parked = Mutex::new(items.iter().copied().collect());
                let table = Table { parked, bytes: 0 };
                let mut pages = ParkedPages::new(&table, &log, Seq(from), per_page);
                let mut read = Vec::new();
                while let Some(page) = block_on(pages.next()).expect("in memory") {
                    let known = |p: &ParkedItem| {
                        ALL.into_iter().find(|(seq, id)| (Seq(*seq), *id) == (p.seq, &p.identity))
                    };
                    let page: Vec<(u64, &str)> = page.iter().filter_map(known).collect();
                    if removes {
                        page.iter().for_each(|item| table.remove(*item));
                    }
                    read.extend(page);
                }
                let expected: Vec<_> =
                    items.iter().copied().filter(|(seq, _)| *seq >= from).collect();
                assert_eq!(read, expected, "pages of {per_page} from {from}, removes: {removes}");
            }
        }
    }

    /// A walk over large items ends early, and is not whole.
    #[test]
    fn a_walk_is_bounded_in_bytes() {
        let log = "ledger/org:acme".parse().expect("a log");
        let table = Table { parked: Mutex::new(ALL.into()), bytes: LISTED_BYTES_MAX / 3 + 1 };
        let mut pages = ParkedPages::new(&table, &log, Seq::ZERO, 1);
        let mut read = 0;
        while block_on(pages.next()).expect("in memory").is_some() {
            read += 1;
        }
        assert_eq!((read, pages.are_whole()), (3, false));
    }
}
