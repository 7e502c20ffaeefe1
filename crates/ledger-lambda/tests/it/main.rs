//! The template against the code: what both name must be the same.

mod permissions;
mod stack;
mod template;
