//! A service whose commands change nothing. The sweep sends it commands; their entries show that every hop works.

use schemars::JsonSchema;

use serde::{Deserialize, Serialize};

use crate::names::{DocumentId, LogId, Name, Partition, ServiceName};
use crate::service::{Code, Context, Documents, Service};

/// The service. A host registers it so that the sweep can send canaries. The processor does not publish their commits
/// by default, because subscribers cannot read their logs. A host whose view watches the hops behind the topic makes
/// its processor publish them.
pub struct Canary;

/// Its only command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
pub enum CanaryCommand {
    /// Shows that commands reach the journal.
    Sing,
}

/// Its only event.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum CanaryEvent {
    /// The command has reached the journal.
    Sang,
}

/// Never: the service accepts every command.
#[derive(Debug, thiserror::Error)]
pub enum CanaryRefusal {}

impl Code for CanaryRefusal {
    fn code(&self) -> &'static str {
        match *self {}
    }
}

impl Canary {
    /// The user, and so the log, of the canary with this number.
    pub fn user(number: usize) -> String {
        format!("canary-{number}")
    }

    /// The log of the canary with this number: `canary/user:canary-0`.
    pub fn log(number: usize) -> Option<LogId> {
        let user = Name::new(Self::user(number)).ok()?;
        Some(LogId::new(&ServiceName::new(Self::NAME).ok()?, &Partition::user(&user)))
    }
}

impl Service for Canary {
    const NAME: &'static str = "canary";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("sang", 1)];
    type Command = CanaryCommand;
    type Event = CanaryEvent;
    type Document = ();
    type Rejection = CanaryRefusal;

    fn documents(_: &CanaryCommand) -> Vec<DocumentId> {
        DocumentId::new("canary").into_iter().collect()
    }

    fn init(_: &DocumentId) {}

    fn decide(
        _: &Documents<'_, ()>,
        command: &CanaryCommand,
        _: &Context,
    ) -> Result<Vec<(DocumentId, CanaryEvent)>, CanaryRefusal> {
        let CanaryCommand::Sing = command;
        Ok(DocumentId::new("canary").into_iter().map(|id| (id, CanaryEvent::Sang)).collect())
    }

    fn evolve((): &mut (), _: &CanaryEvent) {}
}
