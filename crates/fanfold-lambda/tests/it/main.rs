//! The Lambdas as functions from events to answers, over the ports in memory: AWS is not needed to
//! see what they make of what it brings.

mod api;
mod panics;
mod settings;
mod streams;
mod sweeps;
mod views;
mod world;
