//! wip

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod planted;
pub mod ports;
