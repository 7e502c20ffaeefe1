use std::error::Error;

/// The text of an error and of all its causes, in one line. JSON lines of `tracing` have only the
/// error itself.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
