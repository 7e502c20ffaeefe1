//! The template against the code: what both name must be the same.

mod alarms;
mod for_each;
mod permissions;
mod policies;
mod stack;
mod template;
