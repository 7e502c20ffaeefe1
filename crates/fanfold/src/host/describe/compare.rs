//! Compares two descriptions: does the new app read what was written by the old one, and do old readers read what the
//! new one writes?

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

use super::expand::Expander;
use super::fits::{Difference, Reading, differences};
use super::{
    CommandDescription, Description, EventDescription, ServiceDescription, ViewDescription,
};

/// A difference between two descriptions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where: `event booking.booked, data.room`.
    pub at: String,
    /// What is different, for which reader, and what to do.
    pub what: String,
    /// Whether something that relies on the old description cannot take it.
    pub breaks: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

const OLD_COMMANDS: Reading =
    Reading { is_of_old: true, given: "commands of old clients", taker: "this build" };
const STORED_EVENTS: Reading =
    Reading { is_of_old: true, given: "stored events", taker: "this build" };
const NEW_EVENTS: Reading =
    Reading { is_of_old: false, given: "new events", taker: "views of other apps" };
const STORED_ROWS: Reading = Reading { is_of_old: true, given: "stored rows", taker: "this build" };
const NEW_ROWS: Reading = Reading { is_of_old: false, given: "new rows", taker: "old readers" };

impl Description {
    /// The differences to an older description that something relies on.
    ///
    /// - Commands of old clients must be valid.
    /// - Events of one version must be readable both ways: stored ones by this build, new ones by other teams' views. A
    ///   change of their data needs a new version, which is reported and breaks nothing: a view that does not know it
    ///   stops at the first such event until it is deployed anew.
    /// - Rows must be readable by old readers, and, within one version of the view, stored rows by this build.
    /// - A view keeps its services and event types within one version.
    pub fn compare(&self, old: &Self) -> Vec<Change> {
        let mut found =
            Found { old: Expander::of(old), new: Expander::of(self), changes: BTreeSet::new() };
        for (name, was) in &old.services {
            match self.services.get(name) {
                Some(now) => found.service(name, was, now),
                None => found.breaks(
                    format!("service {name}"),
                    "is gone, so this build refuses its commands and cannot read its logs: keep it",
                ),
            }
        }
        for (name, was) in &old.views {
            let at = format!("view {name}");
            match self.views.get(name) {
                Some(now) => found.view(&at, was, now),
                None => found
                    .breaks(at, "is gone, so old readers get 404: keep it until nothing reads it"),
            }
        }
        found.changes.into_iter().collect()
    }

    /// Whether a command with this schema of its `data` may be sent without data. Where the schema does not say so plainly,
    /// it may not.
    pub fn takes_no_data(&self, data: &Value) -> bool {
        let taken = Expander::of(self).expand(data);
        let takes = |given: &Value| {
            differences(OLD_COMMANDS, "data", Some(given), taken.as_ref()).is_empty()
        };
        takes(&no_data()) || takes(&json!({ "type": "null" }))
    }
}

/// The schema of absent data, which is read as `{}`.
fn no_data() -> Value {
    json!({ "type": "object", "maxProperties": 0 })
}

struct Found<'a> {
    old: Expander<'a>,
    new: Expander<'a>,
    changes: BTreeSet<Change>,
}

impl Found<'_> {
    fn breaks(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.changes.insert(Change { at: at.into(), what: what.into(), breaks: true });
    }

    /// Reports what breaks nothing by itself.
    fn notice(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.changes.insert(Change { at: at.into(), what: what.into(), breaks: false });
    }

    fn service(&mut self, name: &str, was: &ServiceDescription, now: &ServiceDescription) {
        for (command, was) in &was.commands {
            let at = format!("command {name}.{command}");
            match now.commands.get(command) {
                Some(now) => self.command(&at, was, now),
                None => self.breaks(
                    at,
                    "is gone, and old clients send it: keep it, and let `decide` refuse it",
                ),
            }
        }
        for (kind, was) in &was.events {
            let at = format!("event {name}.{kind}");
            match now.events.get(kind) {
                Some(now) => self.event(&at, was, now),
                None => self.breaks(
                    at,
                    "is gone, and this build cannot read the stored ones: keep it in `EVENTS`",
                ),
            }
        }
        for kind in now.events.keys().filter(|kind| !was.events.contains_key(*kind)) {
            self.notice(
                format!("event {name}.{kind}"),
                "is new, and a view of another app cannot be waited for (`?seq=` gets 400) until it lists it: \
                 list it there, and raise that view's `VERSION`",
            );
        }
    }

    fn command(&mut self, at: &str, was: &CommandDescription, now: &CommandDescription) {
        match (&was.data, &now.data) {
            (Some(was), Some(now)) => {
                let advice = "go on taking what old clients send, or make another command";
                self.whole(at, "data", OLD_COMMANDS, [was, now], advice);
            }
            (None, None) => {}
            (None, Some(now)) => {
                let now = self.new.expand(now);
                if !differences(OLD_COMMANDS, "data", Some(&no_data()), now.as_ref()).is_empty() {
                    self.breaks(
                        at,
                        "takes data now, and old clients send none: make its fields optional, or make another command",
                    );
                }
            }
            (Some(_), None) => self.breaks(
                at,
                "takes no data any more, and old clients send some: go on taking it, or make another command",
            ),
        }
    }

    fn event(&mut self, at: &str, was: &EventDescription, now: &EventDescription) {
        let (old, new) = (was.version, now.version);
        if new > old {
            let what = format!(
                "has version {new} instead of {old}, and views of other apps stop at the first such event until they \
                 know it: let the service upcast version {old}, and tell the owners of those views"
            );
            self.notice(at, what);
        } else if new < old {
            let what = format!(
                "has version {new} instead of {old}, and this build cannot read stored events of version {old}: \
                 raise it to {old} or more"
            );
            self.breaks(at, what);
        } else {
            let advice = format!("raise the event's version, and upcast version {old}");
            self.whole(at, "data", STORED_EVENTS, [&was.data, &now.data], &advice);
            self.whole(at, "data", NEW_EVENTS, [&was.data, &now.data], &advice);
        }
    }

    fn view(&mut self, at: &str, was: &ViewDescription, now: &ViewDescription) {
        let (old, new) = (was.version, now.version);
        if new > old {
            let what = format!(
                "has version {new} instead of {old}, and is built again from the journal: readers miss rows until that is done"
            );
            self.notice(at, what);
        } else if new < old {
            let what = format!(
                "has version {new} instead of {old}, and the table of version {new} may hold rows of an earlier build: raise \
                 `VERSION` above {old}"
            );
            self.breaks(at, what);
        } else {
            self.stored_rows(at, was, now);
            self.same_source(at, was, now);
        }
        for (kind, of) in &was.events {
            if let Some(version) = now.events.get(kind).filter(|version| *version < of) {
                let what = format!(
                    "reads version {version} of the event `{kind}` instead of {of}, and stops at stored events of \
                     version {of}: list version {of} or more in its `EVENTS`"
                );
                self.breaks(at, what);
            }
        }
        for service in was.services.iter().filter(|service| !now.services.contains(service)) {
            let what = format!(
                "does not read the service `{service}` any more, so old readers of its rows get 404: go on reading \
                 it, or make another view"
            );
            self.breaks(at, what);
        }
        if was.can_be_awaited && !now.can_be_awaited {
            self.breaks(
                at,
                "cannot be waited for any more (`?seq=` gets 400), since it does not list every event type of its \
                 services: list them, and raise `VERSION`",
            );
        }
        let advice = "go on writing what old readers take, or make another view";
        self.whole(at, "row", NEW_ROWS, [&was.row, &now.row], advice);
    }

    /// Compares the rows of two builds of one version of a view: this build reads stored rows, and readers get them as
    /// they are stored.
    fn stored_rows(&mut self, at: &str, was: &ViewDescription, now: &ViewDescription) {
        let unreadable = self.differences("row", STORED_ROWS, [was.stored(), now.stored()]);
        let undescribed = self.differences("row", STORED_ROWS, [&was.row, &now.row]);
        for (path, what) in undescribed.difference(&unreadable) {
            let advice = "let new readers take them, or raise `VERSION`";
            self.notice(format!("{at}, {path}"), format!("{what}: {advice}"));
        }
        for (path, what) in unreadable {
            let advice = "raise `VERSION`, or give it a default, else such rows park the view";
            self.breaks(format!("{at}, {path}"), format!("{what}: {advice}"));
        }
    }

    /// Compares what two builds of one version of a view read. Hosts refuse a view whose announced version has other
    /// services or event types.
    fn same_source(&mut self, at: &str, was: &ViewDescription, now: &ViewDescription) {
        let services = |of: &ViewDescription| of.services.iter().cloned().collect();
        let kinds = |of: &ViewDescription| of.events.keys().cloned().collect();
        let differing = [
            ("service", differing(&services(was), &services(now))),
            ("event type", differing(&kinds(was), &kinds(now))),
        ];
        for (what, names) in differing.iter().filter(|(_, names)| !names.is_empty()) {
            let (names, version) = (names.join(", "), was.version);
            let what = format!(
                "has another list of {what}s within version {version} ({names}), and hosts refuse it: raise `VERSION`"
            );
            self.breaks(at, what);
        }
    }

    /// Compares the schemas of a whole command, event or row, `[old, new]`.
    fn whole(
        &mut self,
        of: &str,
        path: &str,
        reading: Reading,
        schemas: [&Value; 2],
        advice: &str,
    ) {
        for (path, what) in self.differences(path, reading, schemas) {
            self.breaks(format!("{of}, {path}"), format!("{what}: {advice}"));
        }
    }

    /// The differences between two schemas, `[old, new]`.
    fn differences(
        &self,
        path: &str,
        reading: Reading,
        [was, now]: [&Value; 2],
    ) -> BTreeSet<Difference> {
        let (old, new) = (self.old.expand(was), self.new.expand(now));
        let (given, taken) = if reading.is_of_old { (old, new) } else { (new, old) };
        differences(reading, path, given.as_ref(), taken.as_ref())
    }
}

/// The names that only one of the two has, each with whether it is new.
fn differing(was: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let new = now.difference(was).map(|name| format!("`{name}` is new"));
    new.chain(was.difference(now).map(|name| format!("`{name}` is gone"))).collect()
}
