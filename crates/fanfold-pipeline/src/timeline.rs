//! The timeline: who did what, of all actions of operators.
//!
//! An action is recorded as begun before it is done, and is not done if that fails. Afterwards its outcome is recorded,
//! as well as that goes: if it fails, the action is answered as it came out, and its record still says that it has
//! begun. So no action is without a record, and a record without an outcome says that the outcome is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fanfold::host::body::action::{Action, ActionState};
use fanfold::{Time, with_causes};

use crate::ports::{ActionId, Env, OperatorTimeline, TimelinePage, Unavailable};

const HOP: &str = "timeline";

/// The operator of a request, as the host has verified it. A host puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

/// The timeline of a host.
#[derive(Clone)]
pub struct Timeline {
    port: Arc<dyn OperatorTimeline>,
    env: Arc<dyn Env>,
    /// The time of this host's last action, in milliseconds. The next one's is later, so that actions of one millisecond
    /// keep their order.
    last: Arc<AtomicU64>,
}

/// An action that is recorded as begun.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    id: ActionId,
    action: Action,
}

/// A page of the timeline, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionPage {
    /// The actions with their ids.
    pub actions: Vec<(ActionId, Action)>,
    /// The id below which the next page begins; `None` at the end.
    pub next: Option<ActionId>,
}

impl Timeline {
    /// The timeline in a port.
    pub fn new(port: Arc<dyn OperatorTimeline>, env: Arc<dyn Env>) -> Self {
        Self { port, env, last: Arc::default() }
    }

    /// Records that an action begins now. After an error, the action must not be done.
    pub async fn begin(&self, action: Action) -> Result<Begun, Unavailable> {
        let now = self.env.now().0;
        let next = |last: u64| now.max(last + 1);
        let last = self.last.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        let at = Time(next(last.unwrap_or_default()));
        let id = ActionId { at, random: self.env.random() };
        let action = Action { at: id.at, state: ActionState::Begun, result: None, ..action };
        let body = action.encode();
        let body = body.map_err(|error| failed(with_causes(&error)))?;
        self.port.begin(id, &body.into()).await?;
        Ok(Begun { id, action })
    }

    /// Records the outcome of an action, and writes a line into the log. If the record cannot be written, it only logs a
    /// warning.
    pub async fn end(&self, begun: Begun, state: ActionState, result: Option<String>) {
        let Begun { id, action } = begun;
        let action = Action { state, result: result.map(Action::text), ..action };
        let Action { by, is_claimed, action: what, log, view, seq, target, reason, .. } = &action;
        tracing::info!(
            action = what,
            by,
            is_claimed,
            log,
            view,
            seq,
            target,
            reason,
            state = state.name(),
            result = action.result,
            "an operator has acted"
        );
        let stored = match action.encode() {
            Ok(body) => self.port.end(id, &body.into()).await,
            Err(error) => Err(failed(with_causes(&error))),
        };
        if let Err(error) = stored {
            tracing::warn!(%id, %error, "the outcome of an operator's action could not be recorded");
        }
    }

    /// Up to `limit` actions below `before`, newest first. One whose record cannot be read is listed as `unreadable`.
    pub async fn page(
        &self,
        before: Option<ActionId>,
        limit: usize,
    ) -> Result<ActionPage, Unavailable> {
        let TimelinePage { records, more } = self.port.list(before, limit.max(1)).await?;
        let next = records.last().map(|(id, _)| *id).filter(|_| more);
        let actions = records.into_iter().map(|(id, body)| {
            let action = Action::decode(&body).unwrap_or_else(|error| Action {
                at: id.at,
                action: "unreadable".to_owned(),
                result: Some(Action::text(with_causes(&error))),
                ..Action::default()
            });
            (id, action)
        });
        Ok(ActionPage { actions: actions.collect(), next })
    }
}

fn failed(message: String) -> Unavailable {
    Unavailable::Failed { hop: HOP, message }
}
