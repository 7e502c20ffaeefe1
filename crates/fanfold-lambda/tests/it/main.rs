//! The Lambdas as functions from events to answers, over the in-memory ports, without AWS.

mod api;
mod panics;
mod settings;
mod streams;
mod sweeps;
mod views;
mod world;
