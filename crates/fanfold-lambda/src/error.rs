use fanfold::host::body::announced::AnnouncementConflict;
use fanfold::{AppError, with_causes};
use fanfold_aws::events::WrongEvent;
use fanfold_pipeline::ports::Unavailable;
use lambda_runtime::Diagnostic;

use crate::settings::SettingsError;

/// Why an invocation failed. Lambda logs it, and delivers the event again.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// The event is not of the kind that this Lambda handles.
    #[error(transparent)]
    WrongEvent(#[from] WrongEvent),
    /// Some messages of SNS were not applied. SNS has no partial batch response.
    #[error("{failed} of {messages} messages were not applied")]
    NotApplied {
        /// How many messages were not applied.
        failed: usize,
        /// How many messages the event has.
        messages: usize,
    },
    /// The view cannot be served beside what was announced of it.
    #[error(transparent)]
    Announcement(#[from] AnnouncementConflict),
    /// A table or a queue did not answer a sweep.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The handler did not return in time.
    #[error("the invocation's time is over")]
    OutOfTime,
    /// The handler panicked, which is a bug here or in an author's code.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// The body of the answer could not be read, or is longer than Lambda allows.
    #[error("the body of the answer cannot be read, or is too long for Lambda")]
    Body(#[source] axum::Error),
    /// The answer could not be encoded as JSON.
    #[error("the answer cannot be encoded as JSON")]
    Answer(#[from] serde_json::Error),
}

impl From<InvocationError> for Diagnostic {
    /// Diagnostics whose types never change, so that operators can count them.
    fn from(error: InvocationError) -> Self {
        let error_type = match &error {
            InvocationError::WrongEvent(_) => "WrongEvent",
            InvocationError::NotApplied { .. } => "NotApplied",
            InvocationError::Announcement(_) => "Announcement",
            InvocationError::Unavailable(_) => "Unavailable",
            InvocationError::OutOfTime => "OutOfTime",
            InvocationError::Panicked(_) => "Panicked",
            InvocationError::Body(_) => "Body",
            InvocationError::Answer(_) => "Answer",
        };
        Self { error_type: format!("Fanfold.{error_type}"), error_message: with_causes(&error) }
    }
}

/// Why a Lambda ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The app cannot be hosted.
    #[error(transparent)]
    App(#[from] AppError),
    /// Its environment variables are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Traces cannot be sent as the environment variables say.
    #[error(transparent)]
    Traces(#[from] fanfold_otel::OtelError),
    /// The tokio runtime could not be built.
    #[error("cannot start the async runtime")]
    Runtime(#[from] std::io::Error),
    /// Lambda's runtime API failed.
    #[error("the runtime API of Lambda failed")]
    RuntimeApi(#[source] lambda_runtime::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_has_the_causes_of_the_error() {
        let cause = serde_json::from_str::<u8>("x").expect_err("it is not a number");
        let message = format!("the answer cannot be encoded as JSON: {cause}");
        assert_eq!(Diagnostic::from(InvocationError::Answer(cause)).error_message, message);
        let broken = StartError::RuntimeApi("connection reset".into());
        assert_eq!(with_causes(&broken), "the runtime API of Lambda failed: connection reset");
    }
}
