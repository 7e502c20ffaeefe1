//! Checks the guarantees of Fanfold over HTTP: on the real engine behind the real router, on a port
//! of this machine; or, with `FANFOLD_URL` set, on a deployed stack, as `cargo xtask e2e` does.
//! Hostile clients are in `crates/fanfold-cli/tests/it/hostile`, because they need the binary
//! itself.

mod answer;
mod bad_input;
mod counter;
mod dedup;
mod deployed;
mod guest;
mod hosted;
mod isolation;
mod names;
mod operators;
mod parallel;
mod services;
mod tour;
mod world;
