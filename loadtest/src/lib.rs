//! The load generator and its auditor.
//!
//! It drives a ledger over HTTP, whoever runs it, at a rate of its own (open loop), and then reads
//! back what became of every command. It knows the API and the rules of the ledger, and nothing of
//! how they are kept: no crate of Fanfold is linked here, so that a bug cannot hide by being on
//! both sides.

mod arrivals;
pub mod audit;
pub mod http;
mod measure;
mod pacer;
pub mod receipts;
pub mod report;
mod workload;
