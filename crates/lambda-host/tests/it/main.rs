//! The host: batches against a naive model, answers, shards, and a running function.

mod answers;
mod function;
mod lanes;
mod shards;
