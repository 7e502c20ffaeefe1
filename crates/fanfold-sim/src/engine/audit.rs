//! Audits a recovered engine. Every receipt has its entry, everything that a reader saw is still
//! there, and documents, windows and rows are the fold of the commands.

use fanfold::host::body::commit;
use fanfold::host::invariant::Invariant;
use fanfold::{LogId, Seq, Services, Views};
use fanfold_embedded::Engine;
use fanfold_pipeline::ports::{Commands, Journal, RowRange, State, ViewTable};

use super::seen::{Promises, Seen};
use crate::attempts::counted;
use crate::model::Model;
use crate::services::Deployed;

/// Commits in a page.
const COMMITS: usize = 64;

/// Audits all logs of an engine, in one step of the executor. Each receipt in `due` must have its
/// entry.
pub(super) async fn audit(
    engine: &Engine,
    services: &Services,
    views: &Views,
    seen: &Seen,
    due: &Promises,
) -> Model {
    let deployed = vec![services.clone(), crate::services::services(Deployed::First)];
    let mut model = Model::new(deployed, views.clone(), true);
    let ports = engine.ports();
    // Reads of memory do not fail, and no other task runs meanwhile.
    let logs = ports.commands.catalogue(None, usize::MAX).await.map_or(vec![], |page| page.logs);
    for log in &logs {
        journal(engine, log, seen, &mut model).await;
        state(engine, log, &mut model).await;
        for view in views.iter().filter(|view| view.services().contains(&log.service())) {
            let table = &ports.views[view.name()];
            let cursor = table.cursor(log).await.ok().flatten().unwrap_or_default();
            let broken = model.broken(view.name(), log);
            let is_rebuilt = cursor.parked.as_ref().is_some_and(|parked| parked.rebuild.is_some());
            let parked = cursor.parked.as_ref().filter(|parked| counted(&parked.reason).is_none());
            let parked = parked.map(|parked| parked.seq).filter(|_| !is_rebuilt);
            model.check(Invariant::F7, parked.is_none() || parked == broken, || {
                let name = view.name();
                format!("{name} of {log} is parked at {parked:?}, and cannot apply {broken:?}")
            });
            if broken.is_some() || is_rebuilt {
                continue;
            }
            let range = RowRange { limit: usize::MAX, ..RowRange::default() };
            let rows = table.scan(log, &range).await.unwrap_or_default().rows.into_iter();
            let rows = rows.map(|row| (row.key, (row.seq, row.body.to_vec()))).collect();
            model.rows_stored(view.name(), log, cursor.seq, &rows);
        }
        let slot = ports.commands.slot(log).await.ok().flatten().map(|slot| slot.seq);
        let tail = model.tail(log);
        model.check(Invariant::F8, slot >= Some(tail), || {
            format!("{log}: {slot:?} was accepted, and the journal ends at {tail}")
        });
    }
    for ((log, seq), command) in due {
        let entry = model.entry(log, *seq).cloned();
        let kept =
            entry.as_ref().is_some_and(|e| (&e.origin, e.id) == (&command.origin, command.id));
        model.check(Invariant::F8, kept, || {
            format!("{log} {seq} was promised to {}, and is {entry:?}", command.identity())
        });
    }
    for ((log, seq), entry) in &seen.entries {
        let found = model.entry(log, *seq).cloned();
        model.check(Invariant::F3, found.as_ref() == Some(entry), || {
            format!("{log}: a reader saw {entry:?}, and now it is {found:?}")
        });
    }
    for ((view, log, key), rows) in &seen.rows {
        for (seq, row) in rows {
            model.row_seen(view, log, key, *seq, row);
        }
    }
    model
}

/// Reads a whole log, and finds the command of each entry.
async fn journal(engine: &Engine, log: &LogId, seen: &Seen, model: &mut Model) {
    let mut next = Seq(1);
    loop {
        let page = engine.ports().journal.read(log, next, COMMITS).await.unwrap_or_default();
        for item in &page.commits {
            model.check(Invariant::F3, item.first == next, || {
                format!("{log}: a commit begins at {}, behind {}", item.first, next.before())
            });
            let (entries, _) = commit::decode(item.first, &item.body).unwrap_or_default();
            model.check(Invariant::F3, entries.len() as u64 == item.n, || {
                format!("{log}: {} entries in a commit of {}", entries.len(), item.n)
            });
            next = item.last().next();
            for entry in entries {
                let candidates = seen.candidates(log, &entry);
                let explains = candidates.iter().find(|c| model.explains(log, &entry, c));
                match explains.or(candidates.first()).cloned() {
                    Some(command) => model.accept(log, item.at, command),
                    None => model.check(Invariant::F3, false, || {
                        format!("{log}: no command was ever sent for {entry:?}")
                    }),
                }
                if model.violations.is_empty() {
                    model.entered(log, entry);
                }
            }
        }
        if !page.more {
            return;
        }
    }
}

/// Checks the stored documents and windows, then the head, which states that they are stored.
async fn state(engine: &Engine, log: &LogId, model: &mut Model) {
    for key in model.state_keys(log) {
        let keys = std::slice::from_ref(&key);
        let found = engine.ports().state.get(log, keys).await.unwrap_or_default();
        if let Some(item) = found.into_iter().flatten().next() {
            model.stored(log, &key, &item);
        }
    }
}
