//! Errors of calls, told apart by what the caller can do about them.

use std::fmt;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use fanfold_pipeline::ports::Unavailable;

/// The code of a write whose condition failed.
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// The code of a transaction without an effect.
const TRANSACTION_CANCELED: &str = "TransactionCanceledException";
/// The codes of parts of a transaction that another try may do.
const TRANSACTION_THROTTLED: &[&str] =
    &["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];

/// The codes with which DynamoDB, Kinesis, SNS, SQS and KMS refuse a call because there are too many:
/// it has had no effect. Also the codes for an item that another transaction holds, which lasts only
/// a moment.
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

/// Whether a code, of a call or of an entry in a batch, means that it was throttled.
pub(crate) fn is_throttled(code: &str) -> bool {
    THROTTLED.contains(&code)
}

/// An operation and its target, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation of AWS, such as `PutItem`.
    pub operation: &'static str,
    /// The name, ARN or URL of the table, stream, topic or queue.
    pub target: String,
}

impl Call {
    /// An operation on this target.
    pub fn new(operation: &'static str, target: impl Into<String>) -> Self {
        Self { operation, target: target.into() }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation, self.target)
    }
}

/// Why a call failed. `E` is the SDK's error of the operation.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// It was throttled. It has had no effect, and may be retried.
    #[error("{call} was throttled: {message}")]
    Throttled {
        /// The call.
        call: Call,
        /// AWS's code and message.
        message: String,
    },
    /// The condition of a write failed. It has had no effect. The operation's error has the item.
    #[error("the condition of {call} failed")]
    Conflict {
        /// The call.
        call: Call,
        /// The operation's error.
        error: Box<E>,
    },
    /// It was refused: not allowed, malformed, too large, or there is no such table. A retry fails, too.
    #[error("{call} was refused: {message}")]
    Refused {
        /// The call.
        call: Call,
        /// AWS's code and message, such as `ValidationException: too long`.
        message: String,
    },
    /// There was no answer in time. It may have had an effect.
    #[error("{call} was not answered in time")]
    TimedOut {
        /// The call.
        call: Call,
    },
    /// AWS or the network failed. It may have had an effect, and may be retried.
    #[error("{call} failed: {message}")]
    Failed {
        /// The call.
        call: Call,
        /// AWS's code and message, or the error of the network.
        message: String,
    },
}

impl<E> CallError<E> {
    /// Whether it is certain that the call has had no effect and will have none.
    pub fn has_not_happened(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Conflict { .. } | Self::Refused { .. })
    }

    /// The error of the port `hop` that made the call.
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
    /// The error that the SDK's error of this call means.
    pub fn of(call: Call, error: SdkError<E>) -> Self {
        match &error {
            SdkError::TimeoutError(_) => return Self::TimedOut { call },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                return Self::TimedOut { call };
            }
            SdkError::DispatchFailure(failure) if !failure.is_user() => {
                return Self::Failed { call, message: DisplayErrorContext(&error).to_string() };
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                return Self::Refused { call, message: DisplayErrorContext(&error).to_string() };
            }
            _ => {}
        }
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let Some(code) = error.code().map(ToOwned::to_owned) else {
            // The answer cannot be read, so the call may have had an effect.
            return Self::Failed { call, message: DisplayErrorContext(&error).to_string() };
        };
        let message = format!("{code}: {}", error.message().unwrap_or("without a message"));
        // The message has a code for each part of the transaction.
        if code == TRANSACTION_CANCELED {
            let has = |code: &&str| message.contains(*code);
            return match error {
                SdkError::ServiceError(error) if has(&"ConditionalCheckFailed") => {
                    Self::Conflict { call, error: Box::new(error.into_err()) }
                }
                _ if TRANSACTION_THROTTLED.iter().any(has) => Self::Throttled { call, message },
                _ => Self::Refused { call, message },
            };
        }
        if code == CONDITION_FAILED
            && let SdkError::ServiceError(error) = error
        {
            Self::Conflict { call, error: Box::new(error.into_err()) }
        } else if status == 429 || is_throttled(&code) {
            Self::Throttled { call, message }
        } else if status >= 500 {
            Self::Failed { call, message }
        } else {
            Self::Refused { call, message }
        }
    }
}
