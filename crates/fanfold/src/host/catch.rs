//! Turns a panic of an author's code into a [`Fault`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::limits::MESSAGE_BYTES_MAX;

thread_local! {
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Why an author's code gave no result: it panicked, or broke its contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    /// A fault with a message for people, which is cut to [`MESSAGE_BYTES_MAX`].
    pub fn new(message: impl Into<String>) -> Self {
        Self(truncated(message.into(), MESSAGE_BYTES_MAX))
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0
    }
}

/// Whether this thread runs an author's code whose panics are caught. A panic hook asks this, so that it does not log a
/// panic that becomes an outcome.
pub fn is_catching() -> bool {
    CATCHING.get() > 0
}

pub(crate) fn catch<T>(what: &str, code: impl FnOnce() -> T) -> Result<T, Fault> {
    CATCHING.set(CATCHING.get() + 1);
    // Every caller drops the values that the code may have left half-changed.
    let result = catch_unwind(AssertUnwindSafe(code));
    CATCHING.set(CATCHING.get() - 1);
    result
        .map_err(|payload| Fault::new(format!("`{what}` panicked: {}", message(payload.as_ref()))))
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// `text`, cut at a character's boundary to at most `bytes_max`.
pub(crate) fn truncated(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
