//! The ports of Fanfold on DynamoDB, Kinesis, SNS and SQS, and the decoding of Lambda's events.
//!
//! | module | what |
//! |---|---|
//! | [`names`] | names of tables, attributes and variables, which the template has, too |
//! | [`Aws`] | the clients, with their shared meter and deadline |
//! | [`meter`] | capacity units and calls that were spent |
//! | [`call`] | makes every call: counted, bounded in time, none after the deadline |
//! | [`error`] | throttled, conflicting, refused, timed out, failed |
//! | [`dynamo`] | commands, journal, state, parked and view tables, with the costs of each call |
//! | [`KinesisStream`], [`StreamOrder`], [`SnsTopic`] | the command stream, the check of its order, the topics |
//! | [`SqsDeadLetters`], [`SqsQueue`] | a view's dead letters, and its queue if it has one |
//! | [`events`] | events of Lambda decoded, answers encoded |
//! | [`PollingWaits`], [`OpenAdmission`], [`SystemEnv`] | the ports that need no service of AWS |
//!
//! All adapters keep these rules:
//!
//! - Every attempt of a call is counted, and requests a report of the capacity that it consumed.
//! - Reads are strongly consistent, except those of the catalogue, which is an index, and of heads,
//!   which may be old ([`State::heads`](fanfold_pipeline::ports::State::heads)).
//! - Every query reads page by page.
//! - Calls that the stages retry (appends to slots and to the journal, records, messages) are tried
//!   once, all others up to six times.
//! - A write whose answer was lost may have been made, so its error never says that it was not.

mod admission;
pub mod call;
mod clients;
pub mod dynamo;
mod env;
pub mod error;
pub mod events;
mod host_checks;
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
pub use clients::{Aws, of_emulator};
pub use env::SystemEnv;
pub use host_checks::StackChecks;
pub use kinesis::{KinesisStream, spread_canaries};
pub use queue::{SqsQueue, hidden_for};
pub use sns::SnsTopic;
pub use sqs::SqsDeadLetters;
pub use stream_order::StreamOrder;
pub use waits::PollingWaits;
