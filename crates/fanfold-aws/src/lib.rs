//! The ports of Fanfold on DynamoDB, Kinesis, SNS and SQS, and the decoding of what Lambda brings
//! from them.

pub mod names;
