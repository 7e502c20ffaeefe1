//! The kits of views and reactors.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kit, ReactorKit, ViewKit, must, object, parsed, raw, same, stored, written};
use crate::entry::{Entry, Outcome, Raw};
use crate::host::catch::Fault;
use crate::host::command::Command;
use crate::host::limits::ROW_BYTES_MAX;
use crate::names::{LogId, RowKey};
use crate::service::Service;
use crate::services::Services;
use crate::view::ApplyFault;

impl ViewKit {
    /// Events of older versions are upcast by this service, as in an app that has it, unless the view
    /// does it itself.
    #[must_use]
    pub fn beside<S: Service>(mut self) -> Self {
        self.subject = self.subject.beside(&Services::new().with::<S>());
        self
    }
}

impl<T: ?Sized> Kit<Arc<T>> {
    /// Adds the entries of a [`ServiceKit`](super::ServiceKit).
    #[must_use]
    pub fn given(mut self, entries: &[Entry]) -> Self {
        self.entries.extend_from_slice(entries);
        self
    }

    /// Adds an accepted entry. Each event is as the service writes it: its `Event`, or JSON as
    /// `{"type": "deposited", "data": {…}}`.
    #[track_caller]
    #[must_use]
    pub fn given_events<'a, E: Serialize>(
        mut self,
        events: impl IntoIterator<Item = (&'a str, E)>,
    ) -> Self {
        let events = events.into_iter().map(|(document, e)| written(self.events, document, e));
        let outcome = Outcome::Accepted(events.collect());
        self.push("given", outcome);
        self
    }

    /// Adds an accepted entry with an event as it was stored, perhaps by an older build.
    #[track_caller]
    #[must_use]
    pub fn given_stored(
        mut self,
        document: &str,
        kind: &str,
        version: u32,
        data: impl Serialize,
    ) -> Self {
        self.push("given", Outcome::Accepted(vec![stored(document, kind, version, data)]));
        self
    }

    /// Adds a rejected entry.
    #[must_use]
    pub fn given_rejected(mut self, code: &str) -> Self {
        self.push("given", Outcome::rejected(code, code));
        self
    }

    /// Adds a faulted entry.
    #[must_use]
    pub fn given_faulted(mut self, message: &str) -> Self {
        self.push(
            "given",
            Outcome::Faulted { message: message.to_owned(), data: Raw::empty(), timestamp: None },
        );
        self
    }

    /// Adds an entry that an operator gave up.
    #[must_use]
    pub fn given_lost(mut self, reason: &str) -> Self {
        self.push("given", Outcome::Lost { reason: reason.to_owned() });
        self
    }
}

impl ViewKit {
    /// Expects this row.
    #[track_caller]
    pub fn then_row(self, key: &str, expected: impl Serialize) -> Self {
        let actual = self.rows().remove(key).unwrap_or_else(|| raw(()));
        same(&format!("the row `{key}`"), &raw(expected), &actual);
        self
    }

    /// Expects that there is no such row.
    #[track_caller]
    pub fn then_no_row(self, key: &str) -> Self {
        self.then_row(key, ())
    }

    /// Expects these rows and no others.
    #[track_caller]
    pub fn then_rows<'a>(self, expected: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        same("the rows", &raw(BTreeMap::from_iter(expected)), &raw(self.rows::<Raw>()));
        self
    }

    /// Expects that an entry cannot be applied, which parks the log, for a reason that contains `part`.
    #[track_caller]
    pub fn then_parked(self, part: &str) -> Self {
        match self.fold() {
            Ok(_) => panic!("every entry was applied"),
            Err(parked) => assert!(parked.fault.message().contains(part), "{}", parked.fault),
        }
        self
    }

    /// All rows, by key; `Row` is the view's, a [`Value`], or [`Raw`].
    #[track_caller]
    pub fn rows<Row: DeserializeOwned>(&self) -> BTreeMap<String, Row> {
        let rows = self.fold().map_err(|parked| format!("{parked}: {}", parked.fault));
        let mut read = BTreeMap::new();
        for (key, row) in must("the view parks", rows) {
            read.insert(key.to_string(), must("a row", serde_json::from_slice(&row)));
        }
        read
    }

    /// Folds entry by entry with the rows stored in between, and then the entries of each row at once: a row must not
    /// depend on how deliveries are split (F6).
    #[track_caller]
    fn fold(&self) -> Result<BTreeMap<RowKey, Vec<u8>>, ApplyFault> {
        let view = &self.subject;
        let at = |seq| move |fault| ApplyFault { at: seq, fault };
        let mut read = Vec::new();
        for entry in &self.entries {
            read.extend(view.read(&self.log, entry).map_err(at(entry.seq))?);
        }
        let mut rows = BTreeMap::<RowKey, Vec<u8>>::new();
        let mut touching = BTreeMap::<RowKey, Vec<_>>::new();
        for entry in &read {
            for key in view.rows(entry).map_err(at(entry.seq))? {
                let row = rows.remove(&key);
                if let Some(row) = view.fold(&key, row.as_deref(), &[entry])? {
                    if row.len() > ROW_BYTES_MAX.get() {
                        let fault = Fault::new(format!("the row `{key}` is too large"));
                        return Err(at(entry.seq)(fault));
                    }
                    rows.insert(key.clone(), row);
                }
                touching.entry(key).or_default().push(entry);
            }
        }
        for (key, entries) in touching {
            let at_once = view.fold(&key, None, &entries)?;
            let [one_by_one, at_once] = [rows.get(&key), at_once.as_ref()]
                .map(|row| row.map_or_else(|| raw(()), |row| parsed(row)));
            same(&format!("the row `{key}`, folded one by one and at once"), &one_by_one, &at_once);
        }
        Ok(rows)
    }
}

impl ReactorKit {
    /// Expects these commands in answer to the last entry, each for a log, as
    /// `("ledger/org:acme", "deposit", json!({…}))`.
    #[track_caller]
    pub fn then<'a>(self, expected: impl IntoIterator<Item = (&'a str, &'a str, Value)>) -> Self {
        let one = |(log, command, data)| shown_command(log, command, raw(data));
        let expected: Vec<Raw> = expected.into_iter().map(one).collect();
        same("the answer", &raw(expected), &shown(&must("the reactor parks", self.react())));
        self
    }

    /// Expects that the last entry cannot be answered, which parks the log, for a reason that contains `part`.
    #[track_caller]
    pub fn then_parked(self, part: &str) -> Self {
        match self.react() {
            Ok(commands) => panic!("the entry was answered: {}", shown(&commands).get()),
            Err(fault) => assert!(fault.message().contains(part), "{fault}"),
        }
        self
    }

    /// Expects that `S` accepts the form of all commands for it in answer to the last entry.
    #[track_caller]
    pub fn then_valid_for<S: Service>(self) -> Self {
        let services = Services::new().with::<S>();
        let service = services.get(S::NAME).expect("just added");
        for (log, command) in must("the reactor parks", self.react()) {
            if log.service() == S::NAME {
                let parsed = service.parse(&command.name, &command.data);
                must(&format!("`{}` for `{log}`", command.name), parsed);
            }
        }
        self
    }

    #[track_caller]
    fn react(&self) -> Result<Vec<(LogId, Command)>, Fault> {
        let commands = self.subject.react(&self.log, self.last())?;
        let again = self.subject.react(&self.log, self.last())?;
        same("the same entry, answered twice", &shown(&commands), &shown(&again));
        Ok(commands)
    }
}

fn shown(commands: &[(LogId, Command)]) -> Raw {
    let one = |(log, command): &(LogId, Command)| {
        shown_command(log.as_str(), command.name.as_str(), command.data.as_ref().into())
    };
    raw(commands.iter().map(one).collect::<Vec<Raw>>())
}

fn shown_command(log: &str, command: &str, data: Raw) -> Raw {
    object([("log", raw(log)), ("command", raw(command)), ("data", data)])
}
