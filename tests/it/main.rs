//! What Fanfold promises, seen over HTTP: the real engine behind the real router, on a port of this
//! machine, and callers who know nothing but the API.

mod answer;
mod bad_input;
mod counter;
mod dedup;
mod isolation;
mod services;
mod tour;
mod world;
