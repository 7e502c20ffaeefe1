//! Compares the templates with the code.

mod alarms;
mod nesting;
mod permissions;
mod policies;
mod runbook;
mod stack;
mod template;
