//! The ledger, asked from outside: its decisions, its views, and what must hold of both together.

mod decisions;
mod properties;
mod views;
