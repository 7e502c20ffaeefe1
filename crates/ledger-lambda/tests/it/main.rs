//! The template against the code: what both name must be the same.

mod alarms;
mod permissions;
mod policies;
mod stack;
mod template;
