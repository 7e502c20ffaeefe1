//! Tests of the pure core through its public interface: stored and sent formats, refusals, and the
//! state machine of a log under all failures of the hops around it.

mod arbitrary;
mod authors;
mod changes;
mod codecs;
mod comparison;
mod counters;
mod decisions;
mod describe;
mod design;
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
