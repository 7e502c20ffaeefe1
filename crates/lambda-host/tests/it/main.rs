//! The host: batches against a naive model, answers, shards, and a function that runs.

mod answers;
mod function;
mod lanes;
mod shards;
