//! The adapters to AWS: DynamoDB in the test's own process, over a wire that can be troubled; the
//! others with answers that a test gives. And what Lambda brings.

mod answers;
mod calls;
mod capacity;
mod conformance;
mod costs;
mod damaged;
mod dead_letters;
mod dense;
mod dynamo;
mod events;
mod publishing;
mod queues;
mod relaying;
mod schema;
mod stages;
mod tables;
mod together;
mod way;
mod wire;
