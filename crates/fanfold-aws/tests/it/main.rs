//! The adapters against a DynamoDB in the test's own process, over a wire that can be troubled.

mod calls;
mod capacity;
mod conformance;
mod costs;
mod dynamo;
mod schema;
mod stages;
mod tables;
mod way;
mod wire;
