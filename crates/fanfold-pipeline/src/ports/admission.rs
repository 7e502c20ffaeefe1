use fanfold::LogId;

/// Whether new commands are let in. Ingest asks once for each log of a call, before it appends.
pub trait Admission: Send + Sync {
    /// MUST answer at once, from memory: whether to admit depends on nothing that a request could
    /// wait for. A provider refuses while what it has admitted is too far from being processed.
    fn admit(&self, log: &LogId) -> Result<(), NotAdmitted>;
}

/// Not now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not admitting commands: {reason}")]
pub struct NotAdmitted {
    /// For people.
    pub reason: String,
    /// When to try again, in seconds.
    pub retry_after_s: u64,
    /// Whether that is because the disk is full: more than a matter of waiting.
    pub is_full: bool,
}
