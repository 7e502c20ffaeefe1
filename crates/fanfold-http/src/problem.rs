//! Errors as RFC 9457 problems: `{"type","title","status","detail"}`, `application/problem+json`.
//!
//! A problem's `type` is `urn:fanfold:problem:<slug>`. It is absolute, as the RFC recommends, so it
//! is the same on every host and behind every proxy. Programs match `type`, whose meaning never
//! changes. People read `detail`, which begins with the field or parameter at fault, if there is one.

use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use fanfold::{NameError, RequestError};
use fanfold_pipeline::ingest::IngestError;
use fanfold_pipeline::ports::Unavailable;
use fanfold_pipeline::read::{EntryError, LogError, LookupError, UnknownSeq, ViewError};
use serde::Serialize;

/// Seconds after which a client should try again if a table is throttled, full or does not answer.
/// Source: our choice; the stage or its adapter has already retried for about a second.
const RETRY_AFTER_S: u64 = 1;

/// Seconds after which a client should try again if a table refuses the call. Source: our choice; an
/// operator has to change something first.
const RETRY_AFTER_REFUSAL_S: u64 = 30;

/// What to do while the disk is full.
const WHEN_THERE_IS_ROOM: &str = "send the command again, with the same id, when there is room";

/// A kind of problem: what all problems of one `type` share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The problem's `type`.
    pub urn: &'static str,
    /// The problem's `title`.
    pub title: &'static str,
    /// The problem's `status`, also that of the answer.
    pub status: StatusCode,
}

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal;)*) => {
        impl Kind {
            $(
                #[doc = $title]
                pub const $name: Self = Self {
                    urn: concat!("urn:fanfold:problem:", $slug),
                    title: $title,
                    status: StatusCode::$status,
                };
            )*

            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

/// What every problem's `type` begins with.
const URN: &str = "urn:fanfold:problem:";

kinds! {
    NOT_UTF8 = BAD_REQUEST "not-utf8" "The request is not UTF-8";
    NOT_JSON = BAD_REQUEST "not-json" "The request is not JSON";
    NOT_AN_OBJECT = BAD_REQUEST "not-an-object" "The request is not a JSON object";
    MISSING_FIELD = BAD_REQUEST "missing-field" "A required field is missing";
    UNKNOWN_FIELD = BAD_REQUEST "unknown-field" "A field is unknown";
    REPEATED_FIELD = BAD_REQUEST "repeated-field" "A field is given twice";
    WRONG_TYPE = BAD_REQUEST "wrong-type" "A field has the wrong JSON type";
    BAD_ID = BAD_REQUEST "bad-id" "The id is out of range";
    BAD_NAME = BAD_REQUEST "bad-name" "A name is not allowed";
    RESERVED_NAME = BAD_REQUEST "reserved-name" "A name is reserved";
    TOO_DEEP = BAD_REQUEST "too-deep" "The data is nested too deeply";
    UNKNOWN_COMMAND = BAD_REQUEST "unknown-command" "The service has no such command";
    INVALID_DATA = BAD_REQUEST "invalid-data" "The data does not fit the command";
    NO_COMMANDS = BAD_REQUEST "no-commands" "The batch is empty";
    NOT_LINES = BAD_REQUEST "not-lines" "The batch is not one command a line";
    INCOMPLETE_BODY = BAD_REQUEST "incomplete-body" "The body is incomplete";
    UNKNOWN_PARAMETER = BAD_REQUEST "unknown-parameter" "A query parameter is unknown";
    REPEATED_PARAMETER = BAD_REQUEST "repeated-parameter" "A query parameter is given twice";
    BAD_PARAMETER = BAD_REQUEST "bad-parameter" "A parameter has a bad value";
    FILTERED_VIEW = BAD_REQUEST "filtered-view" "The view cannot be waited for";
    BAD_HOST = BAD_REQUEST "bad-host" "The request names no valid host";
    FOREIGN_HOST = FORBIDDEN "foreign-host" "The request is for another host";
    FOREIGN_ORIGIN = FORBIDDEN "foreign-origin" "The request comes from another origin's page";
    UNKNOWN_ROUTE = NOT_FOUND "unknown-route" "There is nothing at this path";
    UNKNOWN_SERVICE = NOT_FOUND "unknown-service" "There is no such service";
    UNKNOWN_SEQ = NOT_FOUND "unknown-seq" "The log has no such seq";
    UNKNOWN_ID = NOT_FOUND "unknown-id" "No command has this id";
    UNKNOWN_VIEW = NOT_FOUND "unknown-view" "There is no such view";
    NOTHING_WAITS = NOT_FOUND "nothing-waits" "Nothing waits there";
    UNKNOWN_ROW = NOT_FOUND "unknown-row" "The view has no such row";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method-not-allowed" "The method is not allowed here";
    REQUEST_TIMEOUT = REQUEST_TIMEOUT "request-timeout" "The request took too long to arrive";
    ID_BELOW_WINDOW = GONE "id-below-window" "The id is older than the ids that the log remembers";
    AMBIGUOUS = CONFLICT "ambiguous" "Several items wait there";
    CANNOT_GO_ON = CONFLICT "cannot-go-on" "What waits cannot go on like this";
    LOG_CLOSED = CONFLICT "log-closed" "The log is closed to commands";
    COMMAND_TOO_LARGE = PAYLOAD_TOO_LARGE "command-too-large" "The command is too large";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body-too-large" "The body is too large";
    TOO_MANY_COMMANDS = PAYLOAD_TOO_LARGE "too-many-commands" "The batch has too many commands";
    UNSUPPORTED_ENCODING = UNSUPPORTED_MEDIA_TYPE "unsupported-encoding" "The body is compressed";
    THROTTLED = TOO_MANY_REQUESTS "throttled" "Too many requests at once";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "The host failed";
    NOT_ADMITTING = SERVICE_UNAVAILABLE "not-admitting" "No commands are admitted now";
    NOT_READY = SERVICE_UNAVAILABLE "not-ready" "The host is not ready";
    OVERLOADED = SERVICE_UNAVAILABLE "overloaded" "Too many requests are under way";
    STOPPING = SERVICE_UNAVAILABLE "stopping" "The host stops";
    DISK_FULL = SERVICE_UNAVAILABLE "disk-full" "The disk is full";
    UNAVAILABLE = SERVICE_UNAVAILABLE "unavailable" "A table does not answer";
    REFUSED = SERVICE_UNAVAILABLE "refused" "A table refuses the call";
}

/// A problem: the answer to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    urn: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem of this kind. `detail` begins with the field or parameter at fault, if there is one.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            urn: kind.urn,
            title: kind.title,
            status: kind.status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// The same problem, with the seconds after which the client should try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The last part of its `type`, such as `not-json`.
    pub(crate) fn slug(&self) -> &'static str {
        self.urn.strip_prefix(URN).unwrap_or(self.urn)
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The problem as JSON: the body of the answer.
    pub fn to_json(&self) -> Vec<u8> {
        // A problem has only numbers and text, so encoding it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Seconds after which the client should try again; `None` if the same request would fail again.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// The problem of an invalid name; `field` is the field or parameter that has it.
    pub fn name(field: &str, error: &NameError) -> Self {
        let kind = match error {
            NameError::Reserved => Kind::RESERVED_NAME,
            NameError::Empty
            | NameError::TooLong { .. }
            | NameError::BadCharacter { .. }
            | NameError::BadEdge { .. }
            | NameError::DotSegment
            | NameError::NotNfc
            | NameError::NotAPartition
            | NameError::NotALog => Kind::BAD_NAME,
        };
        Self::new(kind, format!("`{field}`: {error}"))
    }

    pub(crate) fn unavailable(unavailable: &Unavailable, detail: String) -> Self {
        let kind = match unavailable {
            Unavailable::Throttled { .. } => Kind::THROTTLED,
            Unavailable::Full { .. } => Kind::DISK_FULL,
            Unavailable::TimedOut { .. } | Unavailable::Failed { .. } => Kind::UNAVAILABLE,
            Unavailable::Refused { hop, .. } => {
                tracing::warn!(error = %unavailable, "a request failed");
                let detail = format!(
                    "the {hop} refuses the call, and nothing has happened: an operator has to look at the host's log"
                );
                return Self::new(Kind::REFUSED, detail).retry_after(RETRY_AFTER_REFUSAL_S);
            }
            Unavailable::Damaged { .. } => {
                tracing::error!(error = %unavailable, "a stored item cannot be read");
                return Self::new(Kind::INTERNAL, detail);
            }
        };
        tracing::warn!(error = %unavailable, "a request failed");
        Self::new(kind, detail).retry_after(RETRY_AFTER_S)
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        use fanfold::service::InvalidCommand;
        let kind = match &error {
            RequestError::NotUtf8 { .. } => Kind::NOT_UTF8,
            RequestError::NotJson(_) => Kind::NOT_JSON,
            RequestError::NotAnObject => Kind::NOT_AN_OBJECT,
            RequestError::Missing { .. } => Kind::MISSING_FIELD,
            RequestError::UnknownField { .. } => Kind::UNKNOWN_FIELD,
            RequestError::Repeated { .. } => Kind::REPEATED_FIELD,
            RequestError::WrongType { .. } => Kind::WRONG_TYPE,
            RequestError::BadId => Kind::BAD_ID,
            RequestError::BadName { field, error } => return Self::name(field, error),
            RequestError::TooDeep => Kind::TOO_DEEP,
            RequestError::TooLarge { .. } => Kind::COMMAND_TOO_LARGE,
            RequestError::UnknownService { .. } => Kind::UNKNOWN_SERVICE,
            RequestError::InvalidCommand(InvalidCommand::Unknown { .. }) => Kind::UNKNOWN_COMMAND,
            RequestError::InvalidCommand(InvalidCommand::Data { .. }) => Kind::INVALID_DATA,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let detail = error.to_string();
        match error {
            IngestError::Invalid(error) => error.into(),
            IngestError::NotAdmitted(not) if not.is_full => {
                Self::new(Kind::DISK_FULL, format!("the disk is full: {WHEN_THERE_IS_ROOM}"))
                    .retry_after(not.retry_after_s)
            }
            IngestError::NotAdmitted(not) => {
                Self::new(Kind::NOT_ADMITTING, detail).retry_after(not.retry_after_s)
            }
            IngestError::Closed { .. } => Self::new(Kind::LOG_CLOSED, detail),
            IngestError::Unencodable(source) => {
                tracing::error!(error = %source, "commands cannot be encoded");
                Self::new(Kind::INTERNAL, detail)
            }
            IngestError::Unavailable(full @ Unavailable::Full { .. }) => {
                Self::unavailable(&full, format!("the disk is full: {WHEN_THERE_IS_ROOM}"))
            }
            IngestError::Unavailable(unavailable) => Self::unavailable(&unavailable, detail),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::UnknownService(_) => Kind::UNKNOWN_SERVICE,
            LogError::Undecodable { .. } => {
                tracing::error!(error = ?error, "a stored commit cannot be read");
                Kind::INTERNAL
            }
            // The table's own message goes into the host's log and not to callers, since it may name
            // resources.
            LogError::Unavailable(unavailable @ Unavailable::Failed { hop, .. }) => {
                return Self::unavailable(unavailable, format!("the {hop} failed"));
            }
            LogError::Unavailable(unavailable @ Unavailable::Damaged { hop, .. }) => {
                return Self::unavailable(
                    unavailable,
                    format!("an item of the {hop} cannot be read"),
                );
            }
            LogError::Unavailable(unavailable) => {
                return Self::unavailable(unavailable, unavailable.to_string());
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<UnknownSeq> for Problem {
    fn from(error: UnknownSeq) -> Self {
        Self::new(Kind::UNKNOWN_SEQ, error.to_string())
    }
}

impl From<EntryError> for Problem {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Log(error) => error.into(),
            EntryError::UnknownSeq(error) => error.into(),
        }
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        let detail = error.to_string();
        match error {
            LookupError::Log(error) => error.into(),
            LookupError::NoEntry(error) => error.into(),
            LookupError::UnknownId { .. } => Self::new(Kind::UNKNOWN_ID, detail),
            LookupError::BelowWindow { .. } => Self::new(Kind::ID_BELOW_WINDOW, detail),
        }
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        let detail = error.to_string();
        match error {
            ViewError::Log(error) => error.into(),
            ViewError::UnknownSeq(error) => error.into(),
            ViewError::UnknownView(_) | ViewError::NotItsService { .. } => {
                Self::new(Kind::UNKNOWN_VIEW, detail)
            }
            ViewError::UnknownRow { .. } => Self::new(Kind::UNKNOWN_ROW, detail),
            ViewError::Filtered(_) => Self::new(Kind::FILTERED_VIEW, detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = HttpResponse::new(self.to_json().into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.urn == Kind::UNSUPPORTED_ENCODING.urn {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fanfold_pipeline::ports::NotAdmitted;

    use super::*;

    #[test]
    fn every_kind_has_its_own_type() {
        let urns: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.urn).collect();
        assert_eq!(urns.len(), Kind::ALL.len());
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let problem = Problem::from(RequestError::Missing { field: "id" });
        assert_eq!(
            serde_json::to_string(&problem).expect("a problem can be written"),
            r#"{"type":"urn:fanfold:problem:missing-field","title":"A required field is missing","status":400,"detail":"`id`: is required"}"#
        );
    }

    #[test]
    fn the_problem_of_a_failed_call_has_a_retry_time_and_hides_the_message() {
        let throttled = Unavailable::Throttled { hop: "journal" };
        let problem = Problem::from(LogError::Unavailable(throttled));
        assert_eq!((problem.status, problem.retry_after_s), (429, Some(RETRY_AFTER_S)));
        let failed = Unavailable::Failed { hop: "journal", message: "secret".to_owned() };
        let problem = Problem::from(LogError::Unavailable(failed));
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(RETRY_AFTER_S)));
        assert_eq!(problem.detail, "the journal failed");
        let message = "AccessDeniedException: secret".to_owned();
        let refused = Unavailable::Refused { hop: "commands table", message };
        let problem = Problem::from(IngestError::Unavailable(refused));
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(RETRY_AFTER_REFUSAL_S)));
        assert_eq!(problem.urn, Kind::REFUSED.urn);
        assert!(problem.detail.contains("nothing has happened"), "{}", problem.detail);
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }

    #[test]
    fn a_full_disk_is_the_same_problem_at_admission_and_at_the_append() {
        let full = IngestError::Unavailable(Unavailable::Full { hop: "commands table" });
        let not = NotAdmitted { reason: "full".to_owned(), retry_after_s: 1, is_full: true };
        assert_eq!(Problem::from(IngestError::NotAdmitted(not.clone())), Problem::from(full));
        let behind = IngestError::NotAdmitted(NotAdmitted { is_full: false, ..not });
        assert_eq!(Problem::from(behind).urn, Kind::NOT_ADMITTING.urn);
    }
}
