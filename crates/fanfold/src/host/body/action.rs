//! The record of one action of an operator.

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::host::catch::truncated;
use crate::host::limits::MESSAGE_BYTES_MAX;
use crate::time::Time;

const FORMAT: u8 = 1;

/// What an operator did. Each text has at most [`MESSAGE_BYTES_MAX`] bytes. The JSON is also what callers see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When it began.
    pub at: Time,
    /// Its operator; `None` if the request names none.
    pub by: Option<String>,
    /// Whether the client alone says so. Otherwise the host has verified the operator.
    pub is_claimed: bool,
    /// What it was: `resume`, `shards/split`.
    pub action: String,
    /// The log that the request names, which need not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The view that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The seq that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// All other fields of the request, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is known of its outcome.
    pub state: ActionState,
    /// What it came to, for people; `None` while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

/// What is known of the outcome of an action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// No outcome is recorded: it is under way, or its host ended meanwhile, or the outcome could not be recorded.
    #[default]
    Begun,
    /// It was done.
    Done,
    /// It was refused, and had no effect.
    Refused,
    /// It failed, and may have had an effect.
    Failed,
}

impl ActionState {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Action {
    /// A text as it is recorded: without the end of a long one.
    pub fn text(text: impl Into<String>) -> String {
        truncated(text.into(), MESSAGE_BYTES_MAX)
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(envelope::seal(FORMAT, &serde_json::to_vec(self)?))
    }

    /// Reads what [`Action::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_recorded_is_read_again(
            (at, by, is_claimed, action) in any::<(u64, Option<String>, bool, String)>(),
            (log, view, seq) in any::<(Option<String>, Option<String>, Option<u64>)>(),
            (target, reason, result) in any::<(Option<String>, Option<String>, Option<String>)>(),
            state in prop::sample::select(vec![
                ActionState::Begun,
                ActionState::Done,
                ActionState::Refused,
                ActionState::Failed,
            ]),
        ) {
            let at = Time(at);
            let action = Action {
                at, by, is_claimed, action, log, view, seq, target, reason, state, result,
            };
            let body = action.encode().expect("it can be written");
            prop_assert_eq!(Action::decode(&body).expect("it was written here"), action);
            let json = serde_json::to_value(state).expect("JSON");
            prop_assert_eq!(json, state.name());
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ü".repeat(MESSAGE_BYTES_MAX);
        let text = Action::text(long.clone());
        assert!(text.len() <= MESSAGE_BYTES_MAX && long.starts_with(&text[..2]), "{text}");
        assert_eq!(Action::text("short"), "short");
    }
}
