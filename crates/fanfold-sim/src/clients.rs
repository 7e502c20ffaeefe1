//! Readers and clients. Clients send batches, retry them until a final answer, and keep receipts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use fanfold::host::invariant::Invariant;
use fanfold::{CommandId, LogId, Origin, Seq};
use fanfold_pipeline::ingest::{Ingest, IngestError};
use fanfold_pipeline::ports::{Row, RowRange};
use fanfold_pipeline::read::{Awaited, LookupError, Reads};
use serde_json::Value;

use crate::drive::{BACKOFF_MS, Stage};
use crate::faults::Fault;
use crate::services;
use crate::workload::Habits;

/// Pauses between reads.
const READ_MS: std::ops::Range<u64> = 200..3_000;
/// A client drops a command after this many attempts.
const CLIENT_ATTEMPTS_MAX: u32 = 30;

/// A reader: reads views while they are written, waits for receipts, and looks up commands by id.
pub async fn read(stage: Stage, reads: Reads, clients: Clients) {
    loop {
        stage.pause(READ_MS).await;
        let receipt = {
            let promises = clients.promises.borrow();
            let n = promises.len() as u64;
            if n == 0 {
                continue;
            }
            promises[stage.world.pick(0..n) as usize].clone()
        };
        if stage.world.happens(200) {
            look_up(&stage, reads.clone(), receipt).await;
            continue;
        }
        let view = services::READ[stage.world.pick(0..services::READ.len() as u64) as usize];
        let (reads, log) = (reads.clone(), receipt.log.clone());
        let asked = stage.world.happens(500).then_some(receipt.seq);
        let before = stage.watch.model().rebuilds(view, &log);
        let read = async move { all_rows(&reads, view, &log, asked, 2_000).await };
        if let Some(Some((cursor, rows))) = stage.invoke(stage.deadline(), read).await {
            let rows: Vec<_> = rows.into_iter().map(|row| (row.key, row.seq)).collect();
            stage.watch.audit(|model| {
                if before.leave_alone(model.rebuilds(view, &receipt.log)) {
                    model.seen(view, &receipt.log, cursor, &rows);
                }
                let reached = asked.is_none_or(|asked| cursor >= asked);
                model.check(Invariant::F6, reached, || format!("{view} was read before {asked:?}"));
            });
        }
    }
}

/// Reads a view of a log, page by page. `None`: a page could not be read.
pub async fn all_rows(
    reads: &Reads,
    view: &'static str,
    log: &LogId,
    asked: Option<Seq>,
    wait_ms: u64,
) -> Option<(Seq, Vec<Row>)> {
    let mut range = RowRange { limit: usize::MAX, ..RowRange::default() };
    let (mut first, mut rows) = (None, Vec::new());
    loop {
        let read = reads.rows(view, log, &range, asked, wait_ms).await;
        let Ok(Awaited::Ready(page)) = read else { return None };
        rows.extend(page.rows);
        // The cursor was read before the rows, so all pages hold what the first promises.
        let first = *first.get_or_insert(page.seq);
        match page.next {
            Some(next) => range.after = Some(next),
            None => return Some((first, rows)),
        }
    }
}

async fn look_up(stage: &Stage, reads: Reads, receipt: Promise) {
    let origin = serde_json::from_value::<Origin>(receipt.origin.into());
    let (Ok(origin), Some(id)) = (origin, CommandId::new(receipt.id)) else { return };
    let (log, by) = (receipt.log.clone(), origin.clone());
    let asked = async move { reads.lookup(&log, &by, id, 500).await };
    let found = match stage.invoke(stage.deadline(), asked).await {
        Some(Ok(Awaited::Ready(entry))) => Some(entry.seq),
        Some(Err(LookupError::UnknownId { .. } | LookupError::BelowWindow { .. })) => None,
        Some(Ok(Awaited::Pending { .. }) | Err(_)) | None => return,
    };
    stage.watch.audit(|model| model.looked_up(&receipt.log, (origin, id), found));
}

/// A receipt that a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The receipt's log.
    pub log: LogId,
    /// The receipt's seq.
    pub seq: Seq,
    /// The command's origin: a user, or a client of a user.
    pub origin: String,
    /// The command's id.
    pub id: u64,
}

/// State that all clients share.
#[derive(Clone, Default)]
pub struct Clients {
    /// Every receipt.
    pub promises: Rc<RefCell<Vec<Promise>>>,
    ids: Rc<RefCell<BTreeMap<(String, String), u64>>>,
    sent: Rc<RefCell<Vec<Value>>>,
}

/// One client: sends batches, and retries those without a final answer.
pub async fn client(stage: Stage, ingest: Rc<Ingest>, habits: Habits, clients: Clients) {
    for _ in 0..habits.requests {
        stage.pause(0..300).await;
        let n = 1 + stage.world.pick(0..habits.batch_max);
        let mut batch: Vec<Value> = (0..n).map(|_| clients.command(&stage, &habits)).collect();
        for _ in 0..CLIENT_ATTEMPTS_MAX {
            batch = clients.send(&stage, &ingest, batch).await;
            if batch.is_empty() {
                break;
            }
            stage.watch.faults.count(Fault::Repeated);
            stage.pause(BACKOFF_MS).await;
        }
    }
}

/// The origin of a command, as its entry has it.
fn origin(command: &Value) -> String {
    let text = |field: &str| command[field].as_str().unwrap_or_default();
    match text("client") {
        "" => text("user").to_owned(),
        client => format!("{}/{client}", text("user")),
    }
}

impl Clients {
    /// A new command or, sometimes, one that was sent before.
    fn command(&self, stage: &Stage, habits: &Habits) -> Value {
        let mut sent = self.sent.borrow_mut();
        if !sent.is_empty() && stage.world.happens(60) {
            stage.watch.faults.count(Fault::Repeated);
            let at = stage.world.pick(0..sent.len() as u64) as usize;
            return sent[at].clone();
        }
        let command = habits.command(&stage.world, |org, origin| {
            let mut ids = self.ids.borrow_mut();
            let id = ids.entry((org.to_owned(), origin.to_owned())).or_default();
            // Sometimes a client uses an id for two commands.
            if *id == 0 || !stage.world.happens(15) {
                *id += 1;
            }
            *id
        });
        sent.push(command.clone());
        command
    }

    /// Sends a batch, and returns the commands to retry.
    async fn send(&self, stage: &Stage, ingest: &Rc<Ingest>, batch: Vec<Value>) -> Vec<Value> {
        let texts: Vec<String> = batch.iter().map(Value::to_string).collect();
        let ingest = ingest.clone();
        let answers = stage.invoke(stage.deadline(), async move {
            let requests: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            ingest.ingest(&requests).await
        });
        let Some(answers) = answers.await else { return batch };
        let mut again = Vec::new();
        for (command, answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok(receipt) => self.promises.borrow_mut().push(Promise {
                    log: receipt.log,
                    seq: receipt.seq,
                    origin: origin(&command),
                    id: command["id"].as_u64().unwrap_or_default(),
                }),
                Err(IngestError::Unavailable(_) | IngestError::NotAdmitted(_)) => {
                    again.push(command);
                }
                Err(
                    IngestError::Invalid(_)
                    | IngestError::Closed { .. }
                    | IngestError::Unencodable(_),
                ) => {}
            }
        }
        again
    }
}
