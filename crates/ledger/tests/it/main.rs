//! Tests of the ledger by its public interface: its decisions, its views, and properties of both together.

mod decisions;
mod properties;
mod views;
