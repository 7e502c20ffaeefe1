use fanfold_aws::events::WrongEvent;
use fanfold_pipeline::ports::Unavailable;
use lambda_runtime::Diagnostic;

use crate::settings::SettingsError;

/// Why an invocation failed. Lambda shows it, and brings the event again.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// This is not for this Lambda.
    #[error(transparent)]
    WrongEvent(#[from] WrongEvent),
    /// Messages that SNS has delivered itself, which has no partial batch response.
    #[error("{failed} of {messages} messages were not applied")]
    NotApplied {
        /// How many were not.
        failed: usize,
        /// Of how many.
        messages: usize,
    },
    /// A table, or a queue, does not answer a sweep.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It has not returned in time.
    #[error("the invocation's time is over")]
    OutOfTime,
    /// A bug, here or in an author's code.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// An answer that is longer than Lambda takes.
    #[error("the answer has no end that could be answered")]
    Body(#[source] axum::Error),
    /// An answer that is no JSON.
    #[error("the answer cannot be written")]
    Answer(#[from] serde_json::Error),
}

impl From<InvocationError> for Diagnostic {
    /// With types that stay the same, for whoever counts them.
    fn from(error: InvocationError) -> Self {
        let error_type = match &error {
            InvocationError::WrongEvent(_) => "WrongEvent",
            InvocationError::NotApplied { .. } => "NotApplied",
            InvocationError::Unavailable(_) => "Unavailable",
            InvocationError::OutOfTime => "OutOfTime",
            InvocationError::Panicked(_) => "Panicked",
            InvocationError::Body(_) => "Body",
            InvocationError::Answer(_) => "Answer",
        };
        Self { error_type: format!("Fanfold.{error_type}"), error_message: error.to_string() }
    }
}

/// Why a Lambda does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its environment is not what it needs.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No runtime.
    #[error("the runtime does not start")]
    Runtime(#[from] std::io::Error),
    /// Lambda's runtime API broke off.
    #[error("the runtime API of Lambda does not answer: {0}")]
    RuntimeApi(lambda_runtime::Error),
}
