//! Tests of the ledger through its public interface: its decisions, its views, and properties of
//! both together.

mod decisions;
mod properties;
mod views;
