//! Reads the parked table page by page. What waits for an operator stays there, and must not hide
//! what lies behind it, unless it is so much that the log is in alarm anyway.

use std::collections::BTreeSet;

use fanfold::{LogId, Seq};

use crate::ports::{ParkedItem, ParkedTable, Unavailable};

/// Items that one walk lists, about. Source: our choice. A walk reads at most 10 MB of small items,
/// and a log with so many that wait for an operator has been in alarm for long.
const LISTED_MAX: usize = 10_000;

/// The parked items of a log, by seq and then identity, until [`LISTED_MAX`].
pub(crate) struct ParkedPages<'a> {
    table: &'a dyn ParkedTable,
    log: &'a LogId,
    per_page: usize,
    /// Where the next page begins.
    from: Seq,
    /// The identities at `from` that were read already.
    read: BTreeSet<String>,
    /// How many items were listed. An item that was listed twice counts twice.
    listed: usize,
    is_whole: bool,
}

impl<'a> ParkedPages<'a> {
    /// Pages of about `per_page` items, from `from` on.
    pub(crate) fn new(
        table: &'a dyn ParkedTable,
        log: &'a LogId,
        from: Seq,
        per_page: usize,
    ) -> Self {
        Self { table, log, per_page, from, read: BTreeSet::new(), listed: 0, is_whole: false }
    }

    /// Whether the last page was the end. If not, a caller that needs what is above the tail begins
    /// again there.
    pub(crate) fn are_whole(&self) -> bool {
        self.is_whole
    }

    /// The next page; `None` if the last one was the end, or enough was listed.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<ParkedItem>>, Unavailable> {
        if self.is_whole || self.listed >= LISTED_MAX {
            return Ok(None);
        }
        // The port lists from a seq on, so a page begins with what the last one had of that seq.
        let limit = self.per_page + self.read.len();
        let mut items = self.table.list(self.log, self.from, limit).await?;
        self.listed += items.len();
        self.is_whole = items.len() < limit;
        items.retain(|item| item.seq > self.from || !self.read.contains(&item.identity));
        if let Some(last) = items.last().map(|item| item.seq) {
            if last > self.from {
                self.from = last;
                self.read.clear();
            }
            let at_last = items.iter().filter(|item| item.seq == last);
            self.read.extend(at_last.map(|item| item.identity.clone()));
        }
        Ok(Some(items))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::executor::block_on;

    use super::*;

    /// What is parked, by seq and identity.
    struct Table(Mutex<BTreeSet<(u64, &'static str)>>);

    impl Table {
        fn items(&self) -> Vec<(u64, &'static str)> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
        }

        fn remove(&self, item: (u64, &'static str)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&item);
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
            from: Seq,
            limit: usize,
        ) -> Result<Vec<ParkedItem>, Unavailable> {
            let items = self.items().into_iter().filter(|(seq, _)| *seq >= from.0).take(limit);
            let item = |(seq, identity): (u64, &str)| ParkedItem {
                seq: Seq(seq),
                identity: identity.to_owned(),
                body: Bytes::new(),
            };
            Ok(items.map(item).collect())
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
                let table = Table(Mutex::new(items.iter().copied().collect()));
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
}
