//! The ports of Fanfold on DynamoDB, Kinesis, SNS and SQS, and the decoding of what Lambda brings
//! from them.

mod admission;
pub mod call;
mod clients;
mod env;
pub mod error;
pub mod meter;
pub mod names;

pub use admission::OpenAdmission;
pub use clients::Aws;
pub use env::SystemEnv;
