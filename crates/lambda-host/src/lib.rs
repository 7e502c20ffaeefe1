//! Runs Lambdas' own binaries on this machine, over any endpoint of AWS, as Lambda does: the
//! runtime API, event source mappings of streams and queues, asynchronous invocations with their
//! retries, schedules, and an HTTP API before a function. Faults can be planted in it.
//!
//! It does not depend on the functions' code. As in Lambda:
//!
//! - A process has one invocation at a time. A process that ends, or does not answer in time, is
//!   killed and replaced, and its invocation has failed.
//! - The records of one key of a stream arrive in order, and none is skipped. A batch is retried
//!   until it is done, from the lowest record that was reported, and without new records. A batch
//!   that failed as a whole is retried in two halves, if the mapping bisects.
//! - The children of a shard are read when all of its own records are done.
//! - A queue's messages are deleted when they are done. Until then only the queue's visibility
//!   timeout hides them.
//!
//! Unlike Lambda, it has no permissions, no frozen processes, no throttles, no bound on the bytes
//! of a batch, and only as many processes as are configured. Its pauses between retries are
//! shorter.

pub mod answer;
pub mod config;
pub mod control;
pub mod event;
pub mod front;
pub mod function;
pub mod host;
pub mod lane;
pub mod mapping;
mod runtime_api;
pub mod shard;
mod worker;

pub use worker::Failed;
