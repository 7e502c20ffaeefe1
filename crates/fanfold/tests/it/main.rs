//! Tests of the pure core by its public interface: what it stores and sends, what it refuses, and the state machine of a
//! log under all failures of the hops around it.

mod arbitrary;
mod authors;
mod codecs;
mod counters;
mod decisions;
mod exact_numbers;
mod golden;
mod history;
mod hostile;
mod names;
mod notifications;
mod purity;
mod requests;
mod samples;
mod schema;
mod snapshots;
mod unreadable;
mod world;
