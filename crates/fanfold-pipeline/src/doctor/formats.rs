//! The versions of the formats of what was read.

use std::error::Error;

use fanfold::host::body::DecodeError;

use super::{Ailment, Examined};

/// The highest version that is taken for one of Fanfold's. Source: our choice; there is one so far, and the first byte of
/// something that Fanfold has not written is most often that of a text.
const VERSION_MAX: u8 = 31;

impl Examined {
    /// Counts the format of a stored body.
    pub(super) fn count_format(&mut self, of: &str, body: &[u8]) {
        let Some(version) = body.first().filter(|version| **version <= VERSION_MAX) else { return };
        *self.formats.entry(format!("{of} v{version}")).or_default() += 1;
    }

    /// Notes a body that a newer build has written, if this is why it cannot be read.
    pub(super) fn add_newer(&mut self, what: &str, error: &(dyn Error + 'static)) -> bool {
        let Some((found, known)) = newer(error) else { return false };
        let detail = format!(
            "{what} has format {found}, and this build reads up to {known}: deploy the build that wrote it"
        );
        self.add(Ailment::NewerFormat, None, detail);
        true
    }
}

/// The format of a body that a newer build has written, and the newest that this build reads.
fn newer(error: &(dyn Error + 'static)) -> Option<(u8, u8)> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(DecodeError::Format { found, known }) = error.downcast_ref::<DecodeError>() {
            return (known < found && *found <= VERSION_MAX).then_some((*found, *known));
        }
        next = error.source();
    }
    None
}
