//! Runs Lambdas' own binaries on this machine, over any endpoint of AWS, as Lambda does: the runtime
//! API, event source mappings of streams and queues, asynchronous invocations with their retries,
//! schedules, and an HTTP API before a function. Faults can be planted in it.
//!
//! It knows nothing of what the functions do. What it has in common with Lambda:
//!
//! - A process has one invocation at a time. One that ends, or does not answer in time, is killed
//!   and replaced; the invocation has failed.
//! - The records of one key of a stream come in order, and none is left out: a batch comes again
//!   until it is done, from the lowest record that was reported, and with nothing new in it. One
//!   that failed as a whole comes again in two halves, if the mapping says so.
//! - The children of a shard are read when all of its own records are done.
//! - A queue's messages are deleted when they are done, and hidden until then by the queue alone.
//!
//! What it has not: permissions, frozen processes, throttles, more processes than are configured,
//! and a bound on the bytes of a batch. Its pauses between tries are shorter.

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
