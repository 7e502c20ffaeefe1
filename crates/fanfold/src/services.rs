//! The services of one host.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::entry::kinds;
use crate::host::limits::EVENT_KINDS_MAX;
use crate::names::{Name, ServiceName};
use crate::service::{AnyService, Service, hosted};

/// The services of one host, by name.
#[derive(Clone, Default)]
pub struct Services(BTreeMap<&'static str, Arc<dyn AnyService>>);

impl Services {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `S`. Panics, at start-up, if its constants break the rules of [`Service`] or its name
    /// is taken. An [`App`](crate::App) reports such problems instead.
    #[must_use]
    pub fn with<S: Service>(mut self) -> Self {
        let problems = self.add::<S>();
        assert!(problems.is_empty(), "{}", problems.join("; "));
        self
    }

    /// Adds `S`, and returns what is wrong with it.
    pub(crate) fn add<S: Service>(&mut self) -> Vec<String> {
        let mut problems = author_problems("service", S::NAME, S::EVENTS);
        if S::NAME == kinds::NAMESPACE {
            let name = S::NAME;
            problems.push(format!(
                "a service must not be called `{name}`: the kinds of that name are not its own"
            ));
        }
        let taken = self.0.insert(S::NAME, hosted::<S>());
        problems.extend(taken.map(|_| format!("two services are called `{}`", S::NAME)));
        problems
    }

    /// The service of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn AnyService>> {
        self.0.get(name)
    }

    /// Whether one of these services, as far as they are known, has an event type other than `events`.
    pub fn have_more_than<'a>(
        &self,
        services: impl IntoIterator<Item = &'a str>,
        events: impl Fn(&str) -> bool,
    ) -> bool {
        let services = services.into_iter().filter_map(|name| self.get(name));
        services.flat_map(|service| service.events()).any(|(kind, _)| !events(kind))
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn AnyService>> {
        self.0.values()
    }
}

/// What is wrong with the constants of a service, a view or a reactor.
pub(crate) fn author_problems(what: &str, name: &str, events: &[(&str, u32)]) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(e) = ServiceName::new(name) {
        problems.push(format!("the name of the {what} `{name}` {e}"));
    }
    let n = events.len();
    if n > EVENT_KINDS_MAX {
        problems.push(format!(
            "the {what} `{name}` lists {n} event types, at most {EVENT_KINDS_MAX} are allowed"
        ));
        return problems;
    }
    for (at, (kind, version)) in events.iter().enumerate() {
        if let Err(e) = Name::new(*kind) {
            problems.push(format!("the event type `{kind}` of the {what} `{name}` {e}"));
        }
        if *version == 0 {
            problems.push(format!("the event type `{kind}` of the {what} `{name}` has version 0"));
        }
        if events[..at].iter().any(|(other, _)| other == kind) {
            problems.push(format!("the {what} `{name}` lists the event type `{kind}` twice"));
        }
    }
    problems
}
