//! The ports of Fanfold on DynamoDB, Kinesis, SNS and SQS, and the decoding of what Lambda brings
//! from them.
//!
//! | module | what |
//! |---|---|
//! | [`names`] | tables, attributes and variables, as the template has them too |
//! | [`Aws`] | the clients, and what they share: a meter, and the invocation's deadline |
//! | [`meter`] | what the calls have cost |
//! | [`call`] | the one way to make a call: counted, bounded, never after the deadline |
//! | [`error`] | throttled, conflicting, refused, timed out, failed |
//! | [`dynamo`] | commands, journal, state, parked, views, on DynamoDB; what each call costs |
//! | [`KinesisStream`], [`StreamOrder`], [`SnsTopic`] | the command stream, whether it keeps the order, the topics |
//! | [`SqsDeadLetters`], [`SqsQueue`] | a view's dead letters; its queue, if it has one |
//! | [`events`] | what Lambda brings, decoded; what it is answered |
//! | [`PollingWaits`], [`OpenAdmission`], [`SystemEnv`] | the ports that need no service of AWS |
//!
//! What holds for all adapters: every attempt of a call is counted and asks what it consumed;
//! reads are strongly consistent, but for the catalogue, which is an index, and for heads, which may
//! be old ([`State::heads`](fanfold_pipeline::ports::State::heads)); every query is read page by
//! page; what the stages retry (appends to slots and to the journal, records, messages) is tried
//! once, all else up to six times. An answer that was lost may hide that a write was made: then it
//! is never said that it was not.

mod admission;
pub mod call;
mod clients;
pub mod dynamo;
mod env;
pub mod error;
pub mod events;
mod kinesis;
pub mod meter;
pub mod names;
mod queue;
mod sns;
mod sqs;
mod stream_order;
mod waits;
mod warm;

pub use admission::OpenAdmission;
pub use clients::Aws;
pub use env::SystemEnv;
pub use kinesis::KinesisStream;
pub use queue::{SqsQueue, hidden_for};
pub use sns::SnsTopic;
pub use sqs::SqsDeadLetters;
pub use stream_order::StreamOrder;
pub use waits::PollingWaits;
