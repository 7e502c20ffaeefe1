use async_trait::async_trait;
use serde::Serialize;

/// What a host's settings should be, and are not; or a check that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostFinding {
    /// The check: `stream_order`.
    pub what: &'static str,
    /// Details, for people: what is wrong, and what to do.
    pub detail: String,
}

/// What the checks of a host's settings came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HostChecked {
    /// Settings that are wrong.
    pub findings: Vec<HostFinding>,
    /// The checks that were made, whatever they found.
    pub checked: Vec<&'static str>,
    /// The checks that could not be made.
    pub unchecked: Vec<HostFinding>,
}

impl HostChecked {
    /// Adds what a check came to: what is wrong, if something is, or why it could not be made.
    pub fn add(&mut self, what: &'static str, result: Result<Option<String>, String>) {
        match result {
            Ok(wrong) => {
                if !self.checked.contains(&what) {
                    self.checked.push(what);
                }
                self.findings.extend(wrong.map(|detail| HostFinding { what, detail }));
            }
            Err(detail) => self.unchecked.push(HostFinding { what, detail }),
        }
    }
}

/// Checks the settings of a host, which other programs and people can change. A check changes nothing, and takes a bounded
/// time.
#[async_trait]
pub trait HostChecks: Send + Sync {
    /// Makes all checks. One that fails stops no other.
    async fn check(&self) -> HostChecked;
}
