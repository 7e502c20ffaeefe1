//! The outcome that each command should have.

use fanfold::entry::{Entry, Outcome};
use fanfold::host::body::commit;
use fanfold::host::catch::Fault as Panic;
use fanfold::host::limits::{COMMIT_BYTES_MAX, DOCUMENT_BYTES_MAX};
use fanfold::host::window::{Sighting, Window};
use fanfold::service::{AnyDocument, Decision, InvalidCommand};
use fanfold::{AnyService, Command, Context, DocumentId, LogId, Seq, Time};
use serde_json::Value;

use super::{LogModel, Model};

/// The code of a rejection because of a limit.
pub(super) const TOO_LARGE: &str = "too_large";
/// Bytes by which the model may underestimate an entry that was rejected as too large: it sees only
/// the rejection.
const ENTRY_BYTES_ABOUT: usize = 100;

impl Model {
    /// Whether deciding `command` at this entry's seq gives this entry's outcome.
    pub fn explains(&self, log: &LogId, entry: &Entry, command: &Command) -> bool {
        let empty = LogModel::default();
        let model = self.logs.get(log).unwrap_or(&empty);
        let expected = self.expected_of(model, log, entry, command);
        expected.is_some_and(|expected| agrees(&expected, &entry.outcome))
    }

    /// The command at this entry's seq, and the outcome that the model decides for it.
    pub(super) fn expected(&self, log: &LogId, entry: &Entry) -> Option<(Command, Outcome)> {
        let model = self.logs.get(log)?;
        let (_, accepted) = model.accepted.get((entry.seq.0 as usize).checked_sub(1)?)?;
        let rival = model.rivals.get(&entry.seq);
        let command =
            rival.filter(|r| r.origin == entry.origin && r.id == entry.id).unwrap_or(accepted);
        Some((command.clone(), self.expected_of(model, log, entry, command)?))
    }

    fn expected_of(
        &self,
        model: &LogModel,
        log: &LogId,
        entry: &Entry,
        command: &Command,
    ) -> Option<Outcome> {
        let window = model.windows.get(&command.origin).and_then(|history| history.last());
        let sight = |(_, window): &(Seq, Window)| window.sight(command.id, entry.time);
        let outcome = match window.map_or(Sighting::New, sight) {
            Sighting::Known(of) => repeated(&model.accepted, command, of),
            Sighting::Unknown => Outcome::Stale,
            Sighting::New => self.decided(model, log, entry, command)?,
        };
        if let Some(of) = model.used.get(&(command.origin.clone(), command.id))
            && outcome.uses_id()
        {
            // The id was used, though the window has it as new. The mismatch is then a breach.
            return Some(Outcome::Duplicate { of: *of });
        }
        // An entry with this outcome may be too large.
        let as_entry = Entry { outcome: outcome.clone(), ..entry.clone() };
        let mut written = Vec::new();
        commit::write_entry(&as_entry, &mut written).ok()?;
        let is_found = is_too_large(&entry.outcome);
        let about = if is_found { written.len() + ENTRY_BYTES_ABOUT } else { written.len() };
        Some(if about > COMMIT_BYTES_MAX.get() { too_large() } else { outcome })
    }

    /// The version of the service that decided: the one that writes such events.
    fn deciding(&self, log: &LogId, entry: &Entry) -> Option<&dyn AnyService> {
        let versions = self.versions(log);
        let newest = versions.first().copied();
        let Outcome::Accepted(events) = &entry.outcome else { return newest };
        let writes = |service: &&dyn AnyService| {
            events.iter().all(|event| {
                service.events().iter().any(|(kind, version)| {
                    (*kind, *version) == (event.kind.as_str(), event.version)
                })
            })
        };
        versions.into_iter().find(writes).or(newest)
    }

    fn decided(
        &self,
        model: &LogModel,
        log: &LogId,
        entry: &Entry,
        command: &Command,
    ) -> Option<Outcome> {
        let service = self.deciding(log, entry)?;
        let faulted = |fault: &Panic| Outcome::Faulted {
            message: fault.to_string(),
            data: command.data.as_ref().into(),
            timestamp: command.timestamp,
        };
        let parsed = match service.parse(&command.name, &command.data) {
            Ok(parsed) => parsed,
            Err(invalid) => return Some(rejected(&invalid)),
        };
        let mut ids = match service.documents(&parsed) {
            Ok(declared) => declared,
            Err(fault) => return Some(faulted(&fault)),
        };
        let ctx = Context {
            log: log.clone(),
            seq: entry.seq,
            time: entry.time,
            origin: command.origin.clone(),
            id: command.id,
            timestamp: command.timestamp,
        };
        let mut rounds = 0;
        let decided = loop {
            let docs = ids.iter().map(|id| {
                let document = model.documents.get(id).and_then(|(document, _)| document.as_ref());
                (id, document)
            });
            let docs: Vec<(&DocumentId, Option<&AnyDocument>)> = docs.collect();
            let more = match service.decide(&docs, &parsed, &ctx) {
                Ok(Decision::More(more)) if rounds < 4 => more,
                decided => break decided,
            };
            rounds += 1;
            ids.extend(more);
        };
        Some(match decided {
            Ok(Decision::More(_)) => faulted(&Panic::new("it asks for more a fifth time")),
            Err(fault) => faulted(&fault),
            Ok(Decision::Rejected { code, message }) => Outcome::rejected(code, message),
            Ok(Decision::Accepted { documents, .. })
                if documents.iter().any(|(_, _, bytes)| *bytes > DOCUMENT_BYTES_MAX.get()) =>
            {
                too_large()
            }
            Ok(Decision::Accepted { events, .. }) => Outcome::Accepted(events),
        })
    }
}

/// Whether `found` agrees with the expected outcome.
pub(super) fn agrees(expected: &Outcome, found: &Outcome) -> bool {
    match (expected, found) {
        (Outcome::Faulted { .. }, Outcome::Faulted { .. }) => true,
        // The processor took the command for the cause of crashes, and did not run it.
        (expected, Outcome::Faulted { message, .. }) if expected.uses_id() => {
            message.starts_with("it has ended its process")
        }
        // The model does not predict the text.
        (Outcome::Rejected { code: expected, .. }, Outcome::Rejected { code, .. })
            if expected == TOO_LARGE =>
        {
            code == TOO_LARGE
        }
        (
            Outcome::Rejected { code: expected, of: of @ Some(_), .. },
            Outcome::Rejected { code, of: found, .. },
        ) => (expected, of) == (code, found),
        (expected, found) => expected == found,
    }
}

fn too_large() -> Outcome {
    Outcome::rejected(TOO_LARGE, String::new())
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { code, .. } if code == TOO_LARGE)
}

fn rejected(invalid: &InvalidCommand) -> Outcome {
    Outcome::rejected(invalid.code(), invalid.to_string())
}

/// The outcome of a command whose id was used at `of`: the same command, or another one.
fn repeated(accepted: &[(Time, Command)], command: &Command, of: Seq) -> Outcome {
    let json = |command: &Command| serde_json::from_str::<Value>(command.data.get()).ok();
    let first = accepted.get((of.0 as usize).saturating_sub(1)).map(|(_, first)| first);
    match first {
        Some(first) if first.name != command.name || json(first) != json(command) => {
            Outcome::Rejected { code: "id_reused".to_owned(), message: String::new(), of: Some(of) }
        }
        _ => Outcome::Duplicate { of },
    }
}
