//! The ports of Fanfold on DynamoDB, Kinesis, SNS and SQS, and the decoding of what Lambda brings
//! from them.

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
mod sns;
mod sqs;
mod waits;
mod warm;

pub use admission::OpenAdmission;
pub use clients::Aws;
pub use env::SystemEnv;
pub use kinesis::KinesisStream;
pub use sns::SnsTopic;
pub use sqs::SqsDeadLetters;
pub use waits::PollingWaits;
