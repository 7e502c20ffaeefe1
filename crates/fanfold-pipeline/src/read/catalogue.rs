//! Lists logs.

use fanfold::host::canary::Canary;
use fanfold::host::knob::Knob;
use fanfold::{LogId, Service};

use super::{LogError, Reads};
use crate::ports::{CataloguePage, CataloguePosition};

/// Logs that one read of the catalogue returns if only some of them are asked for. Source: our choice;
/// their names are about 30 KB.
const LOGS_PER_READ: Knob = Knob::new(1_000, 1);
/// Reads of the catalogue for one page. Source: our choice; 5,000 logs are then looked at, which are
/// some 70 read units on DynamoDB and less than a second.
const READS_PER_PAGE: usize = 5;

impl Reads {
    /// At most `limit` logs whose names begin with `prefix`, in the catalogue's order, from `after`
    /// on. Logs of canaries are not listed.
    ///
    /// The order of the catalogue is not that of names, so a prefix selects from all logs. The call
    /// looks at a bounded number of logs: a page may have few logs, or none, and yet a next page.
    pub async fn logs(
        &self,
        prefix: &str,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, LogError> {
        if let Some((service, _)) = prefix.split_once('/')
            && self.services.get(service).is_none()
        {
            return Err(LogError::UnknownService(service.to_owned()));
        }
        let is_asked =
            |log: &LogId| log.as_str().starts_with(prefix) && log.service() != Canary::NAME;
        let commands = &self.ports.commands;
        let (mut logs, mut next): (Vec<LogId>, _) = (Vec::new(), after);
        for _ in 0..READS_PER_PAGE {
            let room = limit.max(1) - logs.len();
            let read = if prefix.is_empty() { room } else { LOGS_PER_READ.get() };
            let mut page = commands.catalogue(next.clone(), read).await?;
            // The next page begins behind the last log of this one. Only the catalogue knows that
            // position, so it is asked for fewer logs.
            while let Some(fitting) = surplus(&page.logs, is_asked, room) {
                page = commands.catalogue(next.clone(), fitting).await?;
            }
            logs.extend(page.logs.into_iter().filter(is_asked));
            next = page.next;
            if next.is_none() || logs.len() >= limit {
                break;
            }
        }
        Ok(CataloguePage { logs, next })
    }
}

/// How many logs there are before the first that is asked for and does not fit into the `room`; `None`
/// if all fit.
fn surplus(logs: &[LogId], is_asked: impl Fn(&LogId) -> bool, room: usize) -> Option<usize> {
    let mut asked = logs.iter().enumerate().filter(|(_, log)| is_asked(log));
    asked.nth(room).map(|(before, _)| before)
}
