//! Admission where the provider has room for everything.

use fanfold::LogId;
use fanfold_pipeline::ports::{Admission, NotAdmitted};

/// Always admits: on AWS what is accepted waits in the tables and streams, however much it is, and
/// a log that gets more than its slot can take is throttled there.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAdmission;

impl Admission for OpenAdmission {
    fn admit(&self, _log: &LogId) -> Result<(), NotAdmitted> {
        Ok(())
    }
}
