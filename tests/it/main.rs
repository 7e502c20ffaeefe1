//! What Fanfold promises, seen over HTTP, by callers who know nothing but the API: of the real engine
//! behind the real router, on a port of this machine; or, with `FANFOLD_URL` set, of a deployed stack,
//! as `cargo xtask e2e` does it. Clients that do not behave are in `crates/fanfold-cli/tests/it/hostile`,
//! for they need the binary itself.

mod answer;
mod bad_input;
mod counter;
mod dedup;
mod deployed;
mod hosted;
mod isolation;
mod names;
mod parallel;
mod services;
mod tour;
mod world;
