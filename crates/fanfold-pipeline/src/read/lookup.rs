//! Looks up the entry of an id.

use fanfold::host::body::head::{Head, decode_window};
use fanfold::host::window::{Sighting, Window};
use fanfold::{CommandId, Entry, LogId, Origin, Seq, StateKey, Time};

use super::{Awaited, COMMITS_PER_READ, HOLE_MS, LogError, LookupError, Reads, UnknownSeq, decode};

impl Reads {
    /// The entry of the first command that `origin` has sent with `id`, among all commands accepted
    /// for the log before the call. Waits up to `wait_ms` milliseconds for those that have no entry
    /// yet.
    ///
    /// It reads the head and perhaps a window. If they have the id, it reads one commit, and
    /// otherwise the journal behind the head.
    pub async fn lookup(
        &self,
        log: &LogId,
        origin: &Origin,
        id: CommandId,
        wait_ms: u64,
    ) -> Result<Awaited<Entry>, LookupError> {
        let until = self.ports.env.now().plus_ms(wait_ms);
        let accepted = self.accepted(log).await?;
        let (mut window, through) = self.window(log, origin).await?;
        // How the window classifies a command that is accepted now.
        let sight = |window: &Window| window.sight(id, self.ports.env.now());
        let never = |window: &Window| {
            let (log, origin) = (log.clone(), origin.clone());
            match sight(window) {
                Sighting::Unknown => LookupError::BelowWindow { log, origin, id },
                Sighting::New | Sighting::Known(_) => LookupError::UnknownId { log, origin, id },
            }
        };
        // Ignores that the window may be idle by now: a stored entry is shown.
        if let Sighting::Known(seq) = window.sight(id, Time(0)) {
            let unknown = || UnknownSeq { log: log.clone(), seq, accepted }.into();
            return self.stored(log, seq).await?.map(Awaited::Ready).ok_or_else(unknown);
        }
        if sight(&window) == Sighting::Unknown {
            return Err(never(&window));
        }
        let (mut next, mut looks) = (through.next(), 0);
        loop {
            looks += 1;
            while next <= accepted {
                let page = self.ports.journal.read(log, next, COMMITS_PER_READ.get()).await;
                let page = page.map_err(LogError::from)?;
                // The entry asked for may be one that is missing in a hole.
                if page.commits.first().is_none_or(|item| item.first > next) {
                    break;
                }
                for item in &page.commits {
                    if item.first > next {
                        break;
                    }
                    let (entries, _) = decode(item.first, &item.body)?;
                    for entry in entries.into_iter().filter(|entry| entry.seq >= next) {
                        if entry.origin != *origin || !entry.outcome.uses_id() {
                            continue;
                        }
                        if entry.id == id {
                            return Ok(Awaited::Ready(entry));
                        }
                        window.insert(entry.id, entry.seq, entry.time);
                    }
                    next = item.last().next();
                }
            }
            match self.left(until) {
                _ if next > accepted => return Err(never(&window)),
                0 => return Ok(Awaited::Pending { seq: next.before(), parked: None }),
                ms => {
                    self.ports.waits.entry(log, accepted, ms).await;
                    if looks > 1 {
                        self.ports.env.sleep(HOLE_MS.min(self.left(until))).await;
                    }
                }
            }
        }
    }

    /// The origin's window, and the seq up to which it is folded. The head is read first, so that a
    /// window stored in an item of its own is at least as new.
    async fn window(&self, log: &LogId, origin: &Origin) -> Result<(Window, Seq), LogError> {
        let version = self.services.get(log.service()).map_or(0, |s| s.document_version());
        let Some(head) = self.state_item(log, StateKey::head(version)).await? else {
            return Ok((Window::default(), Seq::ZERO));
        };
        let unreadable = |error| LogError::Undecodable { first: head.seq, error };
        match Head::decode(&head.body).map_err(unreadable)?.windows {
            Some(mut inline) => Ok((inline.remove(origin).unwrap_or_default(), head.seq)),
            None => match self.state_item(log, StateKey::window(version, origin)).await? {
                Some(item) => {
                    let window = decode_window(&item.body).map_err(unreadable)?;
                    Ok((window, item.seq.max(head.seq)))
                }
                None => Ok((Window::default(), head.seq)),
            },
        }
    }
}
