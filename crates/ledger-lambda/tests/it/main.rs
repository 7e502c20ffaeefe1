//! Compares the template with the code.

mod alarms;
mod permissions;
mod policies;
mod stack;
mod template;
