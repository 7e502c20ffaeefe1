//! What went wrong with a call, in the words by which one decides what to do about it.

use std::fmt;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use fanfold_pipeline::ports::Unavailable;

/// The code of a write whose condition failed.
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// Codes by which DynamoDB, Kinesis, SNS, SQS and KMS say: too much at once, and it has not
/// happened. Also that somebody else's transaction holds an item, which it does for a moment only.
const THROTTLED: &[&str] = &[
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "ThrottledRequestException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "LimitExceededException",
    "SlowDown",
    "Throttled",
    "OverLimit",
    "KMSThrottlingException",
    "KMSThrottling",
    "KmsThrottled",
    "TransactionInProgressException",
    "TransactionConflictException",
    "ReplicatedWriteConflictException",
];

/// Whether a code says that it was too much at once: of a call, or of an entry in a batch.
pub(crate) fn is_throttled(code: &str) -> bool {
    THROTTLED.contains(&code)
}

/// A call and its target, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation of AWS, such as `PutItem`.
    pub operation: &'static str,
    /// The table, stream, topic or queue.
    pub target: String,
}

impl Call {
    /// An operation on something that has a name.
    pub fn new(operation: &'static str, target: impl Into<String>) -> Self {
        Self { operation, target: target.into() }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation, self.target)
    }
}

/// Why a call has no answer. `E` is the operation's own error, as the SDK has it.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// Too much at once: it has not happened, and may be asked again.
    #[error("{call} was throttled: {said}")]
    Throttled {
        /// What was called.
        call: Call,
        /// AWS's code and message.
        said: String,
    },
    /// The condition of a write failed: it has not happened. The operation's error has the item.
    #[error("the condition of {call} failed")]
    Conflict {
        /// What was called.
        call: Call,
        /// The operation's error.
        error: Box<E>,
    },
    /// Not allowed, malformed, no such table, too large: to ask again makes no sense.
    #[error("{call} was refused: {said}")]
    Refused {
        /// What was called.
        call: Call,
        /// AWS's code and message, such as `ValidationException: too long`.
        said: String,
    },
    /// No answer in time: it may have happened.
    #[error("{call} was not answered in time")]
    TimedOut {
        /// What was called.
        call: Call,
    },
    /// An error of AWS, or of the way to it: it may have happened, and may be asked again.
    #[error("{call} failed: {said}")]
    Failed {
        /// What was called.
        call: Call,
        /// AWS's code and message, or what the way to it says.
        said: String,
    },
}

impl<E> CallError<E> {
    /// Whether it is certain that nothing has happened, and nothing will.
    pub fn has_not_happened(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Conflict { .. } | Self::Refused { .. })
    }

    /// The same for a port, whose name is `hop`.
    pub fn unavailable(self, hop: &'static str) -> Unavailable {
        match self {
            Self::Throttled { .. } => Unavailable::Throttled { hop },
            Self::TimedOut { .. } => Unavailable::TimedOut { hop },
            Self::Refused { .. } => Unavailable::Refused { hop, message: self.to_string() },
            Self::Conflict { .. } | Self::Failed { .. } => {
                Unavailable::Failed { hop, message: self.to_string() }
            }
        }
    }
}

impl<E> CallError<E>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    /// What the SDK's error of this call means.
    pub fn of(call: Call, error: SdkError<E>) -> Self {
        match &error {
            SdkError::TimeoutError(_) => return Self::TimedOut { call },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                return Self::TimedOut { call };
            }
            SdkError::DispatchFailure(failure) if !failure.is_user() => {
                return Self::Failed { call, said: DisplayErrorContext(&error).to_string() };
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                return Self::Refused { call, said: DisplayErrorContext(&error).to_string() };
            }
            _ => {}
        }
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let Some(code) = error.code().map(ToOwned::to_owned) else {
            // An answer that cannot be read: what it answers may have happened.
            return Self::Failed { call, said: DisplayErrorContext(&error).to_string() };
        };
        let said = format!("{code}: {}", error.message().unwrap_or("without a message"));
        if code == CONDITION_FAILED
            && let SdkError::ServiceError(error) = error
        {
            Self::Conflict { call, error: Box::new(error.into_err()) }
        } else if status == 429 || is_throttled(&code) {
            Self::Throttled { call, said }
        } else if status >= 500 {
            Self::Failed { call, said }
        } else {
            Self::Refused { call, said }
        }
    }
}
