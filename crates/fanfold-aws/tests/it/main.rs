//! The adapters to AWS. DynamoDB is emulated in the test's own process, over a wire that can fail; the
//! test gives the answers of the other services. Also tests of Lambda's events.

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
mod host_checks;
mod joined_reads;
mod pipeline;
mod publishing;
mod queues;
mod relaying;
mod schema;
mod stages;
mod tables;
mod wire;
