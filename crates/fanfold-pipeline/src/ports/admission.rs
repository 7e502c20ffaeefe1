use fanfold::LogId;

/// Whether new commands are accepted. Ingest asks once per log and call, before it appends.
pub trait Admission: Send + Sync {
    /// MUST answer at once, from memory. A provider refuses as backpressure: while too much of what
    /// it has admitted is not processed.
    fn admit(&self, log: &LogId) -> Result<(), NotAdmitted>;
}

/// Commands are not accepted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host admits no commands now: {reason}")]
pub struct NotAdmitted {
    /// Why, in words.
    pub reason: String,
    /// When to try again, in seconds.
    pub retry_after_s: u64,
    /// Whether the disk is full, so that waiting alone does not help.
    pub is_full: bool,
}
