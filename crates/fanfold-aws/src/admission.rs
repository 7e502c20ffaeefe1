//! Admission on AWS, which always has room.

use fanfold::LogId;
use fanfold_pipeline::ports::{Admission, NotAdmitted};

/// Admits every command, for the sweep's canaries and for operators. On AWS, accepted commands wait in tables and streams without a bound, and
/// DynamoDB throttles a log that gets more commands than its slot can take.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAdmission;

impl Admission for OpenAdmission {
    fn admit(&self, _log: &LogId) -> Result<(), NotAdmitted> {
        Ok(())
    }
}
