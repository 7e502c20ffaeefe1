//! The versions of one view that its hosts have announced. The API serves the last one.

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::time::Time;
use crate::view::AnyView;

const FORMAT: u8 = 1;
/// Versions of a view that are remembered; the oldest is forgotten first. Source: our choice. It bounds the item, and
/// deployments rarely go back further.
const VERSIONS_MAX: usize = 16;

/// What a host says of the view that it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The view's version.
    pub version: u32,
    /// The services whose logs it reads, sorted.
    pub services: Vec<String>,
    /// The event types that it understands, sorted.
    pub events: Vec<String>,
    /// The table of its cursors and rows.
    pub table: String,
    /// When this version was announced, after another one or for the first time.
    pub since: Time,
}

/// The announced versions of one view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The version announced last comes last.
    versions: Vec<Announcement>,
}

/// A view announces a version again, but with other services or event types. The rows of the two would be different.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the view `{view}` has announced version {} with {}, and now announces it with {}: raise its `VERSION`, so that it \
     is built again, or give the view another name", .before.version, reads(.before), reads(.now)
)]
pub struct AnnouncementConflict {
    /// The view.
    pub view: String,
    /// As it was announced.
    pub before: Box<Announcement>,
    /// As it is announced now.
    pub now: Box<Announcement>,
}

/// Why a view cannot be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncementError {
    /// The version was announced with other services or event types.
    #[error(transparent)]
    Conflict(#[from] AnnouncementConflict),
    /// What is stored of the view cannot be read, or the announcement cannot be written.
    #[error("what is announced of the view `{view}` cannot be read")]
    Undecodable {
        /// The view.
        view: String,
        /// Why.
        #[source]
        error: DecodeError,
    },
}

fn reads(announcement: &Announcement) -> String {
    let Announcement { services, events, .. } = announcement;
    format!("the event types `{}` of `{}`", events.join("`, `"), services.join("`, `"))
}

impl Announcement {
    /// The announcement of `view`, whose rows are in `table`, made at `now`.
    pub fn of(view: &dyn AnyView, table: impl Into<String>, now: Time) -> Self {
        let sorted = |names: &mut dyn Iterator<Item = &&'static str>| {
            let mut names: Vec<String> = names.map(|name| (*name).to_owned()).collect();
            names.sort();
            names.dedup();
            names
        };
        Self {
            version: view.version(),
            services: sorted(&mut view.services().iter()),
            events: sorted(&mut view.events().iter().map(|(kind, _)| kind)),
            table: table.into(),
            since: now,
        }
    }
}

impl Announced {
    /// The version that was announced last.
    pub fn last(&self) -> Option<&Announcement> {
        self.versions.last()
    }

    /// Announces `now`, the version of `view` that is served from then on, where `stored` is the body
    /// before. Returns what is announced then, and the body to store, unless it is as before.
    pub fn announce(
        stored: Option<&[u8]>,
        view: &str,
        now: Announcement,
    ) -> Result<(Self, Option<Vec<u8>>), AnnouncementError> {
        let undecodable = |error| AnnouncementError::Undecodable { view: view.to_owned(), error };
        let before = stored.map_or_else(|| Ok(Self::default()), Self::decode);
        let before = before.map_err(undecodable)?;
        let Some(with) = before.with(view, now)? else { return Ok((before, None)) };
        let body = with.encode().map_err(|error| undecodable(error.into()))?;
        Ok((with, Some(body)))
    }

    /// These versions once `view` has announced `now`; `None` if it is the last one already.
    pub fn with(
        &self,
        view: &str,
        now: Announcement,
    ) -> Result<Option<Self>, AnnouncementConflict> {
        let before = self.versions.iter().find(|before| before.version == now.version);
        if let Some(before) = before
            && (&before.services, &before.events) != (&now.services, &now.events)
        {
            let (view, before) = (view.to_owned(), Box::new(before.clone()));
            return Err(AnnouncementConflict { view, before, now: Box::new(now) });
        }
        let is_same = |last: &Announcement| last.version == now.version && last.table == now.table;
        if self.last().is_some_and(is_same) {
            return Ok(None);
        }
        let others = self.versions.iter().filter(|before| before.version != now.version);
        let mut versions: Vec<Announcement> = others.cloned().collect();
        versions.drain(..versions.len().saturating_sub(VERSIONS_MAX - 1));
        versions.push(now);
        Ok(Some(Self { versions }))
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(envelope::seal(FORMAT, &serde_json::to_vec(self)?))
    }

    /// Reads what [`Announced::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: u32, events: &[&str], since: u64) -> Announcement {
        Announcement {
            version,
            services: vec!["ledger".to_owned()],
            events: events.iter().map(|kind| (*kind).to_owned()).collect(),
            table: format!("view-v{version}"),
            since: Time(since),
        }
    }

    fn versions(announced: &Announced) -> Vec<(u32, u64)> {
        announced.versions.iter().map(|version| (version.version, version.since.0)).collect()
    }

    #[test]
    fn the_version_announced_last_is_served() {
        let mut announced = Announced::default();
        assert_eq!(announced.last(), None);
        for (version, since, expected) in [
            (1, 10, vec![(1, 10)]),
            (1, 11, vec![(1, 10)]),
            (2, 12, vec![(1, 10), (2, 12)]),
            (1, 13, vec![(2, 12), (1, 13)]),
        ] {
            let with = announced.with("v", of(version, &["a"], since)).expect("no conflict");
            announced = with.unwrap_or(announced);
            assert_eq!(versions(&announced), expected, "after {version} at {since}");
        }
    }

    #[test]
    fn a_version_keeps_its_event_types() {
        let first = Announced::default().with("v", of(1, &["a", "b"], 1)).expect("no conflict");
        let second = first.expect("it is new").with("v", of(2, &["a"], 2)).expect("no conflict");
        let announced = second.expect("it is new");
        // Also one that is not served any more: its table may be there still.
        let conflict = announced.with("v", of(1, &["a", "c"], 3)).expect_err("a conflict");
        assert_eq!(
            conflict.to_string(),
            "the view `v` has announced version 1 with the event types `a`, `b` of `ledger`, and now announces it with \
             the event types `a`, `c` of `ledger`: raise its `VERSION`, so that it is built again, or give the view \
             another name"
        );
    }

    #[test]
    fn old_versions_are_forgotten() {
        let mut announced = Announced::default();
        for version in 1..=20 {
            let with = announced.with("v", of(version, &["a"], 1)).expect("no conflict");
            announced = with.expect("it is new");
        }
        assert_eq!(announced.versions.len(), VERSIONS_MAX);
        assert_eq!(announced.last().map(|last| last.version), Some(20));
        let bytes = announced.encode().expect("it can be written");
        assert_eq!(Announced::decode(&bytes).expect("it can be read"), announced);
    }
}
